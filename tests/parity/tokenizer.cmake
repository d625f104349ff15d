# The tokenizers and chat templates against PyPI's tokenizers and jinja2. Included by CMakeLists.txt.
set(tokenizer_model ${ACUITY_DEPS}/models/smollm2-135m-instruct-q4_1.gguf)
set(tokenizer_python ${ACUITY_DEPS}/venv/bin/python)

add_executable(tokenizer_dump ${CMAKE_CURRENT_LIST_DIR}/tokenizer_dump.cc)
target_compile_options(tokenizer_dump PRIVATE ${ACUITY_WARNINGS})
target_link_libraries(tokenizer_dump PRIVATE acuity_loader acuity_tokenizer)

add_executable(chat_template_dump ${CMAKE_CURRENT_LIST_DIR}/chat_template_dump.cc)
target_compile_options(chat_template_dump PRIVATE ${ACUITY_WARNINGS})
target_link_libraries(chat_template_dump PRIVATE acuity_tokenizer nlohmann_json::nlohmann_json)

add_test(NAME tokenizer_parity
         COMMAND ${tokenizer_python} ${CMAKE_CURRENT_LIST_DIR}/tokenizer_parity.py
                 $<TARGET_FILE:tokenizer_dump> ${tokenizer_model} ${ACUITY_DEPS}/model-files)
add_test(NAME tokenizer_families
         COMMAND ${tokenizer_python} ${CMAKE_CURRENT_LIST_DIR}/tokenizer_families.py
                 $<TARGET_FILE:tokenizer_dump>)
set_tests_properties(tokenizer_parity tokenizer_families PROPERTIES LABELS parity TIMEOUT 1800)
add_test(NAME chat_template_parity
         COMMAND ${tokenizer_python} ${CMAKE_CURRENT_LIST_DIR}/chat_template_parity.py
                 $<TARGET_FILE:chat_template_dump> ${tokenizer_model})
add_test(NAME chat_templates_real
         COMMAND ${tokenizer_python} ${CMAKE_CURRENT_LIST_DIR}/chat_templates_real.py
                 $<TARGET_FILE:chat_template_dump> ${ACUITY_DEPS}/model-files/templates)
set_tests_properties(chat_template_parity chat_templates_real PROPERTIES LABELS parity TIMEOUT 300)
