"""Exit 0 when the server in this container is ready: every required endpoint answers.

Over TLS, or without it when the server was started with --insecure. The certificate carries
another name than 127.0.0.1, and nobody else can listen there, so it is not checked.
"""

import http.client
import ssl
import sys


def is_ready(connection: http.client.HTTPConnection) -> bool:
    """Whether the server at the other end says so."""
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main(port: int) -> int:
    """The exit status."""
    unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unchecked.check_hostname = False
    unchecked.verify_mode = ssl.CERT_NONE
    secure = http.client.HTTPSConnection("127.0.0.1", port, timeout=3, context=unchecked)
    clear = http.client.HTTPConnection("127.0.0.1", port, timeout=3)
    return 0 if is_ready(secure) or is_ready(clear) else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 8080))
