"""Generates the protobuf stubs while the package is built; everything else is in pyproject.toml."""

import importlib.metadata
import pathlib
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = pathlib.Path(__file__).resolve().parent
PROTO = "acuity/v1/acuity.proto"


def proto_folder() -> pathlib.Path:
    """The repository's, or the copy that a source distribution carries."""
    for folder in (HERE / "proto", HERE.parents[1] / "proto"):
        if (folder / PROTO).is_file():
            return folder
    raise FileNotFoundError(f"{PROTO} is neither in {HERE / 'proto'} nor in ../../proto")


def stub_requirements() -> "list[str]":
    """Stubs run with the grpcio and protobuf that the tool which wrote them asks for."""
    wanted = importlib.metadata.requires("grpcio-tools") or []
    runtime = [r for r in wanted if r.startswith(("grpcio", "protobuf"))]
    return [*runtime, "googleapis-common-protos>=1.56"]


class BuildWithStubs(build_py):
    def run(self) -> None:
        super().run()
        from grpc_tools import protoc

        out = HERE / "src" if self.editable_mode else pathlib.Path(self.build_lib)
        (out / "acuity/v1").mkdir(parents=True, exist_ok=True)
        (out / "acuity/v1/__init__.py").touch()
        if protoc.main(["protoc", f"-I{proto_folder()}", f"--python_out={out}", f"--pyi_out={out}",
                        f"--grpc_python_out={out}", PROTO]) != 0:
            raise RuntimeError(f"protoc failed on {proto_folder() / PROTO}")


class SourceWithProto(sdist):
    def make_release_tree(self, base_dir: str, files: "list[str]") -> None:
        super().make_release_tree(base_dir, files)
        target = pathlib.Path(base_dir) / "proto" / PROTO
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(proto_folder() / PROTO, target)


setup(install_requires=stub_requirements(),
      cmdclass={"build_py": BuildWithStubs, "sdist": SourceWithProto})
