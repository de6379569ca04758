"""The HTTP face: FastAPI on uvicorn. Everything here needs the extra `serve`; no logic of models lives here."""
