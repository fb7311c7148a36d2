"""Where aiohttp's own tests come out otherwise, and why that is right.

Names of tests, the configurations of ``plugin.py``, and the reason.
"""

DIFFERENCES = [
    (
        "test_raw_headers test_empty_header_values",
        "stack api_key bearer_auth cors rate_limit request_id "
        "response_headers security_headers server_timing sign_in",
        "all headers of an answer are compared with a list",
    ),
    (
        "test_max_headers_*",
        "stack security_headers",
        "ten headers more are over the client's limit of the test",
    ),
    (
        "test_absolute_form_target_does_not_spoof_scheme "
        "test_file_upload_30* test_preemptive_auth_with_absolute_domain_uris",
        "https https_redirect",
        "the stand-in for a proxy says that the visitor came by HTTPS, and "
        "redirects go there",
    ),
    (
        "test_drop_duplicate_auth_headers_on_redirect_to_other_host",
        "stack bearer_auth",
        "two lines of Authorization are refused",
    ),
    (
        "test_app_max_client_size test_app_max_client_size_adjusted "
        "test_post_max_client_size* test_multipart_client_max_size",
        "stack body_limit",
        "the limit takes the place of client_max_size",
    ),
    (
        "*_auth_* *_auth test_creds_in_auth_and_redirect_url "
        "test_drop_* test_request_middleware_overrides_* test_answers_* "
        "test_case_sensitive_algorithm_server test_digest_* "
        "test_does_not_answer_* test_double_quote_domain_* "
        "test_middleware_retry_on_401 test_no_retry_on_second_401 "
        "test_preemptive_*",
        "basic_auth",
        "other credentials than ours, or none, are the subject",
    ),
    (
        "test_custom_headers",
        "api_key",
        "it sends a key of its own",
    ),
    (
        "test_access_compressed_file_as_symlink",
        "compression",
        "what the client accepts is compressed",
    ),
    (
        "test_response_with_file* test_response_with_payload_disp",
        "stack compression",
        "what is compressed on its way has no Content-Length",
    ),
    (
        "test_static_file_if_none_match_weak",
        "stack compression",
        "what is compressed has a weak ETag",
    ),
]
