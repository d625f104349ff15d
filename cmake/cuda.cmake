# The CUDA compiler, where there is one: kernels/cuda is then compiled for the architectures below. Nothing else needs
# it, and without it everything else builds. In this order: $CUDACXX, the one that scripts/setup pins, a toolkit, PATH.
#
# Sets ACUITY_NVCC and ACUITY_CUOBJDUMP (empty where not found) and defines acuity_cuda_library().
option(ACUITY_CUDA "Compile kernels/cuda where there is an nvcc" ON)
set(ACUITY_CUDA_ARCHITECTURES "80-real;90a-real" CACHE STRING "What kernels/cuda is compiled for")
set(ACUITY_NVCC "")
set(ACUITY_CUOBJDUMP "")
# A sanitizer build checks the same sources on the CPU; its flags mean nothing to nvcc.
if(ACUITY_CUDA AND NOT ACUITY_SANITIZE)
  if(DEFINED ENV{CUDACXX})
    set(nvcc_program $ENV{CUDACXX} CACHE FILEPATH "nvcc")
  endif()
  find_program(nvcc_program nvcc NO_DEFAULT_PATH
               PATHS ${ACUITY_DEPS}/cuda/bin $ENV{CUDA_HOME}/bin /usr/local/cuda/bin ENV PATH)
  find_program(cuobjdump_program cuobjdump NO_DEFAULT_PATH
               PATHS ${ACUITY_DEPS}/cuda/bin $ENV{CUDA_HOME}/bin /usr/local/cuda/bin ENV PATH)
endif()
if(nvcc_program)
  set(ACUITY_NVCC ${nvcc_program})
  set(CMAKE_CUDA_COMPILER ${nvcc_program})
  set(CMAKE_CUDA_HOST_COMPILER ${CMAKE_CXX_COMPILER})
  set(CMAKE_CUDA_ARCHITECTURES ${ACUITY_CUDA_ARCHITECTURES})
  enable_language(CUDA)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION) # nvcc takes C++20; CMake 3.25 does not know it
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    list(APPEND CMAKE_CUDA_COMPILE_FEATURES cuda_std_20)
  endif()
  if(CCACHE)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
  endif()
  if(cuobjdump_program)
    set(ACUITY_CUOBJDUMP ${cuobjdump_program})
  endif()
  message(STATUS "kernels/cuda: ${ACUITY_NVCC} for ${ACUITY_CUDA_ARCHITECTURES}")
else()
  message(STATUS "kernels/cuda is not compiled: no nvcc (scripts/setup cuda), ACUITY_CUDA off, or a sanitizer build")
endif()

# acuity_cuda_library(NAME SOURCES a.cu b.cc ... [PUBLIC_DEPS lib ...])
function(acuity_cuda_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;PUBLIC_DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR})
  # -Wpedantic would warn of the line directives in nvcc's own output. -lineinfo costs no instruction.
  set(cuda_options --expt-relaxed-constexpr -lineinfo -Werror=all-warnings
      -Xcompiler=-Wall,-Wextra,-Werror,-Wno-missing-field-initializers)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8) # a tenth of the size
    list(APPEND cuda_options --compress-mode=size)
  endif()
  target_compile_options(${name} PRIVATE
    "$<$<COMPILE_LANGUAGE:CUDA>:${cuda_options}>" "$<$<COMPILE_LANGUAGE:CXX>:${ACUITY_WARNINGS}>")
  target_link_libraries(${name} PUBLIC ${ARG_PUBLIC_DEPS})
endfunction()
