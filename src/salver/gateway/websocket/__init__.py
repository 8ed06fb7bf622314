"""The WebSocket door of the data listener: a conversation of inferences on one connection.

`handshake` decides who may begin one, `lane` reads and writes frames under limits, and
`conversation` answers messages in their order.
"""
