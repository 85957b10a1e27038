# Tiny random-weight models for the tests, generated from the stored references (python3 with numpy).
find_package(Python3 COMPONENTS Interpreter REQUIRED)
set(engine_test_data ${CMAKE_CURRENT_LIST_DIR}/../tests/data)
set(engine_fixtures_dir ${CMAKE_BINARY_DIR}/fixtures)
set(engine_fixtures_tool ${CMAKE_CURRENT_LIST_DIR}/../../tools/fixtures/make_tiny_models.py)
file(GLOB engine_references CONFIGURE_DEPENDS ${engine_test_data}/*.json)
add_custom_command(
    OUTPUT ${engine_fixtures_dir}/done
    COMMAND ${Python3_EXECUTABLE} -B ${engine_fixtures_tool} ${engine_fixtures_dir} ${engine_references}
    COMMAND ${CMAKE_COMMAND} -E touch ${engine_fixtures_dir}/done
    DEPENDS ${engine_references} ${engine_fixtures_tool}
    COMMENT "Generating tiny models"
    VERBATIM)
add_custom_target(engine_fixtures DEPENDS ${engine_fixtures_dir}/done)

# What the model tests share. Link a test binary with it to get the fixtures.
add_library(engine_reference_models STATIC ${CMAKE_CURRENT_LIST_DIR}/../tests/reference_models.cpp)
target_link_libraries(engine_reference_models PUBLIC blas_engine_model)
target_include_directories(engine_reference_models PUBLIC ${CMAKE_CURRENT_LIST_DIR}/../tests)
target_compile_definitions(engine_reference_models
    PUBLIC ENGINE_TEST_DATA_DIR="${engine_test_data}" ENGINE_FIXTURES_DIR="${engine_fixtures_dir}")
add_dependencies(engine_reference_models engine_fixtures)
