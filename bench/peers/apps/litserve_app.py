"""LitServe: a LitAPI whose requests are batched for one worker process.

Its default of no `batch_timeout` makes the worker poll without a pause, which takes one of two processors.
"""

import sys

import litserve as ls
import peer_models


class API(ls.LitAPI):
    def setup(self, device):  # noqa: ARG002 - LitServe names it
        self.model = peer_models.load()

    def decode_request(self, request):
        return request["instances"]

    def batch(self, inputs):
        return inputs

    def predict(self, requests):
        return peer_models.answer_all(self.model, requests)

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return output


if __name__ == "__main__":
    api = API(max_batch_size=peer_models.MAX_BATCH, batch_timeout=0.001)
    server = ls.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1, fast_queue=True)
    quiet = {"generate_client_file": False, "log_level": "warning"}
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, **quiet)
