"""The gRPC door: an HTTP/2 lane of its own, and the methods it answers.

`connection` reads and writes frames under limits, `headers` knows HPACK, `call` is one stream,
`infer` the hot path, `oip` and `introspection` the rest of the methods.
"""
