"""The yardstick of gRPC: grpcio's asyncio server that answers every call with an empty message."""

import asyncio
import sys

import grpc


class Everything(grpc.GenericRpcHandler):
    def __init__(self):
        self.method = grpc.unary_unary_rpc_method_handler(self.answer)

    async def answer(self, _, __):
        return b""

    def service(self, _):
        return self.method


async def main():
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Everything(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
