"""A small synchronous client of the Open Inference Protocol over HTTP.

    with salver.Client("http://127.0.0.1:8080") as client:
        scores = client.predict("digits", images)["probabilities"]

Tensors travel in binary both ways. Every failure, the server's or the network's, is raised as a
`SalverError` with a code of the catalogue. `predict` is one request; `predict_all` takes any
number of rows and makes as many requests as they need.
"""

from salver.client.client import Client
from salver.client.prediction import EndpointMetadata, Prediction

__all__ = ["Client", "EndpointMetadata", "Prediction"]
