# cpp/src/kernels/kernels.cpp compiled once for each instruction set, all of them in one library.

include(CheckCXXCompilerFlag)

# What every file of bptt is compiled with.
function(bptt_compile_options target)
  target_compile_features(${target} PRIVATE cxx_std_17)
  set_target_properties(${target} PROPERTIES
    CXX_EXTENSIONS OFF CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
    POSITION_INDEPENDENT_CODE ON INTERPROCEDURAL_OPTIMIZATION OFF)
  if(NOT MSVC)
    # So that an application that links the static library with --gc-sections takes what it uses only.
    target_compile_options(${target} PRIVATE -ffunction-sections -fdata-sections)
  endif()
  if(BPTT_WARNINGS AND NOT MSVC)
    target_compile_options(${target} PRIVATE
      -Wall -Wextra -Wconversion -Wshadow -Wpedantic -Werror)
  endif()
endfunction()

# `set` is the identifier that C++ knows it by. Float and double are an object library each: two compilers
# may work at the same time. Eigen's templates must not be shared between sets, or the linker keeps one copy,
# compiled for a processor that may not be there: hence Eigen's new name in each (tests/check_symbols.py
# holds it so).
function(bptt_add_set target set)
  foreach(real float double)
    set(objects bptt_kernels_${set}_${real})
    add_library(${objects} OBJECT cpp/src/kernels/kernels.cpp)
    bptt_compile_options(${objects})
    target_include_directories(${objects} PRIVATE cpp/src cpp/include)
    target_link_libraries(${objects} PRIVATE Eigen3::Eigen ${BPTT_OPENMP_TARGET})
    target_compile_definitions(${objects} PRIVATE
      BPTT_SET=${set} BPTT_REAL=${real} Eigen=Eigen_${set} EIGEN_DONT_PARALLELIZE)
    # Not -ffast-math: NaN and infinity go through as arithmetic says.
    if(NOT MSVC)
      target_compile_options(${objects} PRIVATE
        $<$<NOT:$<CONFIG:Debug>>:-O3> -fno-math-errno -fno-trapping-math ${ARGN}
        # A loop over rows asks the same questions of each row; GCC would copy it for every answer, and a
        # function for every argument that some caller always gives. And the tile's loop lies in two lines of
        # the cache, not three.
        $<$<CXX_COMPILER_ID:GNU>:-fno-unswitch-loops -fno-ipa-cp-clone -falign-loops=64>
        # GCC says these of its own vector types and intrinsics.
        $<$<CXX_COMPILER_ID:GNU>:-Wno-ignored-attributes -Wno-uninitialized -Wno-maybe-uninitialized>)
    endif()
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${objects}>)
  endforeach()
  string(TOUPPER ${set} upper)
  target_compile_definitions(${target} PRIVATE BPTT_HAVE_${upper})
endfunction()

# The sets of BPTT_INSTRUCTION_SETS; where that is empty, all that the processor's kind has and the compiler knows.
function(bptt_add_kernels target)
  set(known baseline)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    list(APPEND known x86-64-v3 x86-64-v4)
  endif()
  set(flags_baseline)
  set(flags_x86-64-v3 -march=x86-64-v3)
  set(flags_x86-64-v4 -march=x86-64-v4 -mprefer-vector-width=512)

  foreach(name IN LISTS BPTT_INSTRUCTION_SETS)
    if(NOT name IN_LIST known)
      message(FATAL_ERROR "bptt: BPTT_INSTRUCTION_SETS has \"${name}\", expected some of: ${known}")
    endif()
  endforeach()
  foreach(name IN LISTS known)
    if(BPTT_INSTRUCTION_SETS AND NOT name IN_LIST BPTT_INSTRUCTION_SETS)
      continue()
    endif()
    string(MAKE_C_IDENTIFIER ${name} set)
    string(TOUPPER ${set} upper)
    string(REPLACE ";" " " flags "${flags_${name}}")
    check_cxx_compiler_flag("${flags}" BPTT_COMPILES_${upper})
    if(BPTT_COMPILES_${upper})
      bptt_add_set(${target} ${set} ${flags_${name}})
    elseif(BPTT_INSTRUCTION_SETS)
      message(FATAL_ERROR "bptt: ${CMAKE_CXX_COMPILER} knows no ${flags}, which ${name} needs")
    endif()
  endforeach()
endfunction()
