"""The service people write in an afternoon: FastAPI, sentence-transformers, scikit-learn. python -m bench.usual PORT MODEL

MODEL: a folder with the sentence-transformers model. It trains its classifier on the rows on standard input, then serves.
"""

import json
import os
import sys


def main(port: int, where: str) -> None:
    """Train and serve."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel
    from sentence_transformers import SentenceTransformer
    from sklearn.linear_model import LogisticRegression

    rows = json.load(sys.stdin)
    encoder = SentenceTransformer(where, device="cpu")
    classifier = LogisticRegression(C=10, max_iter=1000).fit(
        encoder.encode([text for text, _ in rows]), [label for _, label in rows]
    )
    app = FastAPI()

    class Request(BaseModel):
        inputs: list[str]

    @app.get("/health/ready")
    def ready() -> dict:
        return {"status": "ready"}

    @app.post("/predict")
    def predict(request: Request) -> dict:
        P = classifier.predict_proba(encoder.encode(request.inputs))
        best = P.argmax(1)
        return {
            "predictions": [
                {"label": str(classifier.classes_[j]), "probability": float(P[i, j])} for i, j in enumerate(best)
            ]
        }

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
