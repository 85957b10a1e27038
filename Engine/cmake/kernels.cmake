# Kernel files are compiled for one instruction set each; everything else stays plain x86-64, and the choice is made at
# run time. On other architectures only the scalar table is built.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    set(kernels_dir ${CMAKE_CURRENT_LIST_DIR}/../src/kernels)
    # GCC 12 calls the deliberately undefined operands in its own AVX-512 headers uninitialised.
    set(avx512_flags -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma
        -Wno-uninitialized -Wno-maybe-uninitialized)
    # Always optimised: an unoptimised register tile spills every accumulator, too slow even for tests.
    set_source_files_properties(${kernels_dir}/kernels_avx2.cpp PROPERTIES COMPILE_OPTIONS "-O3;-mavx2;-mfma")
    set_source_files_properties(${kernels_dir}/kernels_avx512.cpp PROPERTIES COMPILE_OPTIONS "-O3;${avx512_flags}")
    set_source_files_properties(${kernels_dir}/kernels_avx512_bf16.cpp
        PROPERTIES COMPILE_OPTIONS "-O3;${avx512_flags};-mavx512bf16")
endif()

# Decode and prefill rates of a model beside the machine's read bandwidth.
add_executable(blas-engine-bench ${CMAKE_CURRENT_LIST_DIR}/../src/bench/main.cpp)
target_link_libraries(blas-engine-bench PRIVATE blas_engine_model)
