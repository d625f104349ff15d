# The daemon and the `acuity` client on Debian slim, without a compiler or Python in what runs: for the CPU, or (target
# cuda) with the CUDA kernels and libraries too, which take 2.2 GB more and a driver on the machine.
#
#     scripts/image                     # builds it and prints its size, with buildah
#     docker build -t acuity .          # the same, with any builder
#     docker run --rm --read-only --cap-drop all --security-opt no-new-privileges \
#       -v "$PWD/models:/models:ro" -p 127.0.0.1:8700:8700 acuity --model smollm2=/models/smollm2.gguf
#     docker build --target cuda -t acuity:cuda .    # then run it with --gpus all and --device cuda

# ---- what runs beside the daemon: Debian's gRPC, protobuf, spdlog, prometheus-cpp and PCRE2
FROM debian:bookworm-slim AS runtime
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      libcivetweb1 libgrpc++1.51 libpcre2-8-0 libprometheus-cpp-core1.0 libspdlog1.10 libutf8proc2 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/*

# ---- the build
FROM debian:bookworm-slim AS build
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      g++ cmake ninja-build ccache python3 python3-pip ca-certificates pkg-config \
      libgrpc++-dev protobuf-compiler-grpc protobuf-compiler libprotobuf-dev libabsl-dev \
      prometheus-cpp-dev libcivetweb-dev libspdlog-dev nlohmann-json3-dev libcli11-dev libpcre2-dev libutf8proc-dev \
      libssl-dev zlib1g-dev \
 && rm -rf /var/lib/apt/lists/*

# The daemon looks for LibTorch where it was linked with it: this path is also the final one.
# A builder may mount an already filled folder here, and a compiler cache at /ccache: both only save time. The cache is
# keyed on the language too.
ENV ACUITY_DEPS=/opt/acuity CCACHE_DIR=/ccache CCACHE_BASEDIR=/src CCACHE_NOHASHDIR=1 LANG=C.UTF-8
WORKDIR /src
COPY scripts/setup scripts/setup
COPY scripts/requirements/libtorch.txt scripts/requirements/libtorch.txt
RUN ./scripts/setup libtorch

COPY CMakeLists.txt CMakePresets.json ./
COPY cmake cmake
COPY proto proto
COPY kernels kernels
COPY engine engine
COPY server server
COPY clients clients
ARG JOBS=2
RUN cmake --preset release -DBUILD_TESTING=OFF \
 && cmake --build build/release --parallel "$JOBS" --target acuityd acuity

# What the final stage gets, stripped. libtorch_cpu is linked with the other four.
COPY deploy/docker deploy/docker
COPY LICENSE LICENSE
COPY --from=runtime /var/lib/dpkg/status /tmp/dpkg-status
RUN set -eu; libraries=/opt/acuity/libtorch/torch/lib; out=/out$libraries; \
    mkdir -p "$out" /out/usr/bin /out/etc/acuity /out/models /out/usr/share/doc/acuity; \
    for name in libtorch_cpu.so libc10.so libgomp.so.1 libcudart.so.13 libcupti.so.13; do \
      strip --strip-unneeded -o "$out/$name" "$libraries/$name"; \
    done; \
    strip -o /out/usr/bin/acuityd build/release/bin/acuityd; \
    strip -o /out/usr/bin/acuity build/release/bin/acuity; \
    cp deploy/docker/acuityd.toml /out/etc/acuity/; \
    cp LICENSE /out/usr/share/doc/acuity/; \
    python3 deploy/docker/sbom.py --dpkg-status /tmp/dpkg-status --project CMakeLists.txt \
      --wheels scripts/requirements/libtorch.txt >/out/usr/share/doc/acuity/sbom.cdx.json

# ---- the same with nvcc and the CUDA half of LibTorch, which the daemon loads when it is told --device cuda
FROM build AS build-cuda
COPY scripts/requirements/cuda.txt scripts/requirements/libtorch-cuda.txt scripts/requirements/
RUN ./scripts/setup cuda && ./scripts/setup libtorch-cuda
ARG JOBS=2
RUN cmake --preset release -DBUILD_TESTING=OFF \
 && cmake --build build/release --parallel "$JOBS" --target acuityd acuity
RUN set -eu; libraries=/opt/acuity/libtorch/torch/lib; \
    for library in "$libraries"/*.so*; do strip --strip-unneeded -o "/out$library" "$library"; done; \
    strip -o /out/usr/bin/acuityd build/release/bin/acuityd; \
    python3 deploy/docker/sbom.py --dpkg-status /tmp/dpkg-status --project CMakeLists.txt \
      --wheels scripts/requirements/libtorch-cuda.txt >/out/usr/share/doc/acuity/sbom.cdx.json

# ---- what both images are told
FROM runtime AS settings
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="acuity" \
      org.opencontainers.image.description="Serves transformer language models over gRPC and measures their attention" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.base.name="debian:bookworm-slim"
USER 65532:65532
WORKDIR /
VOLUME ["/models"]
EXPOSE 8700 8701
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
  CMD ["acuity", "--server", "127.0.0.1:8700", "health", "--timeout", "2"]
# The file sets the two addresses; every flag may follow and wins over it.
ENTRYPOINT ["acuityd", "--config", "/etc/acuity/acuityd.toml"]
CMD ["--model", "default=/models/model.gguf"]

# ---- the image for NVIDIA GPUs
FROM settings AS cuda
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-cuda /out /
RUN ["acuityd", "--version"]

# ---- the image, which is built when no target is named
FROM settings AS cpu
COPY --from=build /out /
# A library that is missing shows here, not at the first start.
RUN ["acuityd", "--version"]
