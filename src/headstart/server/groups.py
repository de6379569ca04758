"""Groups of routes: what metrics count by, and what says which scope a key needs. A fixed few, whatever is asked."""

from __future__ import annotations

_FIXED = {
    "/v1/predict": "predict",
    "/v1/embeddings": "embeddings",
    "/v1/feedback": "feedback",
    "/v1/models": "models",
    "/v1/deployments": "deployments",
    "/health/live": "live",
    "/health/ready": "ready",
    "/v2/health/live": "live",
    "/v2/health/ready": "ready",
    "/v2": "v2",
    "/metrics": "metrics",
    "/docs": "docs",
    "/openapi.json": "docs",
}
HEAVY = frozenset(("predict", "embeddings", "infer"))  # groups of routes whose POST makes work for the network
OPEN = frozenset(("live", "ready"))


def group(path: str) -> str:
    """The group of routes a path belongs to, of a fixed few: what metrics count by."""
    found = _FIXED.get(path)
    if found is not None:
        return found
    if path.startswith("/v1/models/"):
        return "predict" if path.endswith("/predict") else "models"
    if path.startswith("/v2/"):
        return "infer" if path.endswith("/infer") else "v2"
    if path.startswith("/v1/deployments/"):
        return "deployments"
    if path.startswith("/v1/predictions/"):
        return "predictions"
    return "docs" if path.startswith("/docs/") else "other"


def scope_of(method: str, of: str) -> str | None:
    """The scope a key needs for a method on a group of routes; None: no key is needed."""
    if of in OPEN:
        return None
    if method in ("GET", "HEAD", "OPTIONS"):
        return "read"
    return "deploy" if of == "deployments" else "predict"
