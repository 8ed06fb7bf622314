"""The processes of one `salver serve`: a supervisor over a controller and a server process.

The supervisor binds the ports, starts its children and replaces them; the controller takes
changes and publishes tables; the server process answers requests from the tables it last read.
Workers are children of the server process (`salver.runtime.worker`).
"""
