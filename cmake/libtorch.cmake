# LibTorch as three imported targets, from the torch wheel that scripts/setup unpacked.
# The distribution's TorchConfig.cmake pins CUDA architectures and pulls in more than the CPU daemon needs.
# torch_cpu is linked PRIVATE and only by engine/model: its include folder carries old google/protobuf headers.
set(LIBTORCH_ROOT ${ACUITY_DEPS}/libtorch CACHE PATH "Folder with torch/lib and torch/include")
set(torch_root ${LIBTORCH_ROOT}/torch)
if(NOT EXISTS ${torch_root}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "LibTorch not found in ${torch_root}: run ./scripts/setup (or set LIBTORCH_ROOT)")
endif()
add_library(torch_c10 SHARED IMPORTED)
set_target_properties(torch_c10 PROPERTIES IMPORTED_LOCATION ${torch_root}/lib/libc10.so)
add_library(torch_cpu SHARED IMPORTED)
set_target_properties(torch_cpu PROPERTIES IMPORTED_LOCATION ${torch_root}/lib/libtorch_cpu.so)
target_include_directories(torch_cpu SYSTEM INTERFACE
  ${torch_root}/include ${torch_root}/include/torch/csrc/api/include)
target_link_libraries(torch_cpu INTERFACE torch_c10)
# libtorch_cpu needs libcudart and libcupti; scripts/setup puts both beside it.
target_link_options(torch_cpu INTERFACE -Wl,-rpath,${torch_root}/lib -Wl,--allow-shlib-undefined)
