# cpp/src/kernels/kernels.cpp compiled once for each instruction set, all of them in one library.

include(CheckCXXCompilerFlag)

# What every file of bptt is compiled with.
function(bptt_compile_options target)
  set_target_properties(${target} PROPERTIES
    CXX_STANDARD 17 CXX_STANDARD_REQUIRED ON CXX_EXTENSIONS OFF
    CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
    POSITION_INDEPENDENT_CODE ON INTERPROCEDURAL_OPTIMIZATION OFF)
  if(BPTT_WARNINGS AND NOT MSVC)
    target_compile_options(${target} PRIVATE
      -Wall -Wextra -Wconversion -Wshadow -Wpedantic -Werror)
  endif()
endfunction()

# One object library; `set` is the identifier that C++ knows it by. Eigen's templates must not be
# shared between sets, or the linker keeps one copy, compiled for a processor that may not be there:
# hence Eigen's new name in each (tests/check_symbols.py holds it so).
function(bptt_add_set target set)
  add_library(bptt_kernels_${set} OBJECT cpp/src/kernels/kernels.cpp)
  bptt_compile_options(bptt_kernels_${set})
  target_include_directories(bptt_kernels_${set} PRIVATE cpp/src cpp/include)
  target_link_libraries(bptt_kernels_${set} PRIVATE Eigen3::Eigen ${BPTT_OPENMP_TARGET})
  target_compile_definitions(bptt_kernels_${set} PRIVATE
    BPTT_SET=${set} Eigen=Eigen_${set} EIGEN_DONT_PARALLELIZE)
  # Not -ffast-math: NaN and infinity go through as arithmetic says.
  if(NOT MSVC)
    target_compile_options(bptt_kernels_${set} PRIVATE
      $<$<NOT:$<CONFIG:Debug>>:-O3> -fno-math-errno -fno-trapping-math ${ARGN}
      # GCC says these of its own vector types and intrinsics.
      $<$<CXX_COMPILER_ID:GNU>:-Wno-ignored-attributes -Wno-uninitialized -Wno-maybe-uninitialized>)
  endif()
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:bptt_kernels_${set}>)
  string(TOUPPER ${set} upper)
  target_compile_definitions(${target} PRIVATE BPTT_HAVE_${upper})
endfunction()

function(bptt_add_kernels target)
  bptt_add_set(${target} baseline)
  if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    return()
  endif()
  check_cxx_compiler_flag(-march=x86-64-v3 BPTT_COMPILES_X86_64_V3)
  if(BPTT_COMPILES_X86_64_V3)
    bptt_add_set(${target} x86_64_v3 -march=x86-64-v3)
  endif()
  check_cxx_compiler_flag("-march=x86-64-v4 -mprefer-vector-width=512" BPTT_COMPILES_X86_64_V4)
  if(BPTT_COMPILES_X86_64_V4)
    bptt_add_set(${target} x86_64_v4 -march=x86-64-v4 -mprefer-vector-width=512)
  endif()
endfunction()
