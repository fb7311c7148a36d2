"""Which names hide secrets, and which do not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttp_middlewares._core.grammar.secrets import is_secret, strike_out

SECRET = """
AUTH auth_code Authorization Proxy-Authorization X-Auth bearer DPoP
access_token accessToken ACCESS-TOKEN refreshtoken X-Auth-Token id_token
X-Amz-Security-Token X-Vault-Token csrf_token X-CSRF xsrf
key apiKey api-key X-API-Key subscription-key app_key consumer_key
customer-key Ocp-Apim-Subscription-Key X-Functions-Key AWSAccessKeyId
private_key key_id keys signing-key
secret client_secret clientSecret X-Shared-Secret
password passwd passWord pass_word user[password] userpass pass pwd pin
pw psw pswd db_pw user-psw
passphrase pass-phrase passcode X-Passphrase
otp totp smsOtp one_time_otp otp_value code authCode code_verifier device_code
2fa-code
jwt X-JWT-Assertion client_assertion assertion SAMLResponse saml_request
credential X-Amz-Credential credentials creds
signature Signature X-Amz-Signature X-Goog-Signature X-Hub-Signature-256
Signature-Input sig SIG hmac hmacSig sign_key
Cookie Set-Cookie session sessionid JSESSIONID PHPSESSID connect.sid sid
ticket service_ticket
"""

#: On purpose: what a secret word stands in by chance, and what everybody may
#: know.
HARMLESS = """
q page limit offset sort state nonce scope mission version api-version lang
author authors author_id authority
keyword keywords keyboard monkey turkey Idempotency-Key public_key sort_key
partitionKey max_tokens
country_code countryCode currency-code language_code zip_code postalCode
status_code statusCode error_code encode decoder unicode geocode codec
design assign signal insight sign_in signup X-Amz-SignedHeaders
footprint slot_position robotParam eco_demo possession
shipping spin inside passenger compass bypass tickets
Accept Accept-Encoding Content-Type Content-Length User-Agent Referer Origin
X-Request-ID X-Trace traceparent Retry-After Date Host redirect_uri
response_type grant_type
"""


@pytest.mark.parametrize("name", SECRET.split())
def test_name_is_known_to_hide_a_secret(name: str) -> None:
    for text in (name, name.upper(), name.lower(), name.replace("-", "_")):
        assert is_secret(text)


@pytest.mark.parametrize("name", HARMLESS.split())
def test_name_is_let_through_on_purpose(name: str) -> None:
    assert not is_secret(name)
    assert not is_secret(name.replace("-", "_"))


@pytest.mark.parametrize("name", HARMLESS.split())
def test_harmless_word_hides_no_secret_beside_it(name: str) -> None:
    assert is_secret(f"{name}_token")
    assert is_secret(f"api-key-{name}")


@given(st.text(alphabet="ab=&;%?+"), st.booleans())
def test_striking_out_leaves_names_and_separators(
    query: str, show: bool
) -> None:
    found = strike_out(query, "***", show=show)
    separators = [one for one in query if one in "&;"]
    assert [one for one in found if one in "&;"] == separators
    if not show:
        assert strike_out(found, "***", show=show) == found


def test_mark_is_that_of_the_caller() -> None:
    assert strike_out("a=b&sig=c", "REDACTED", show=True) == "a=b&sig=REDACTED"
