#!/bin/sh
# Ask the endpoint `language` of examples/python_model for predictions with nothing but curl.
#     sh examples/client/predict.sh http://127.0.0.1:8080
set -eu
url=${1:-http://127.0.0.1:8080}

curl --silent --show-error --fail "$url/v2/health/ready"
echo
curl --silent --show-error --fail-with-body "$url/v2/models/language/infer" \
  --header 'content-type: application/json' \
  --header 'x-request-id: my-request-1' \
  --data '{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["und das ist nicht alles"]}]}'
echo
