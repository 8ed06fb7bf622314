"""mosec: one worker process behind its Rust front, JSON in and out."""

import peer_models
from mosec import Server, Worker


class Peer(Worker):
    def __init__(self):
        super().__init__()
        self.model = peer_models.load()

    def forward(self, data):
        return peer_models.answer_all(self.model, [request["instances"] for request in data])


if __name__ == "__main__":
    server = Server()
    server.append_worker(Peer, num=1, max_batch_size=peer_models.MAX_BATCH, max_wait_time=1)
    server.run()
