"""The shapes of what is sent and answered, as the OpenAPI page shows them; requests are checked by them too."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SkipValidation

NAME = r"^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?$"
BASE64 = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
TOP = 1000  # labels a prediction

Name = Annotated[str, Field(min_length=1, max_length=64, pattern=NAME)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the version's card")]
Share = Annotated[float, Field(ge=0, le=1)]
Sequence = Annotated[int, Field(ge=0, description="the number of its last change, of all in the project")]


class Sent(BaseModel):
    """What a client sends: nothing but the fields that are known, of the kinds that are said."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Picture(Sent):
    """A picture file."""

    base64: Annotated[str, Field(pattern=BASE64, description="the bytes of the file, as RFC 4648 section 4 has it")]


Text = Annotated[str, Field(max_length=1_000_000)]
Inputs = Annotated[
    Text | Picture | Annotated[list[Text] | list[Picture], Field(min_length=1)],
    SkipValidation,  # read by hand: there may be many
    Field(description="texts, or pictures for a model of pictures; one or a list"),
]


class Predict(Sent):
    """Inputs for one model."""

    inputs: Inputs
    top: Annotated[int, Field(ge=0, le=TOP)] = Field(0, description="give so many likeliest labels of each input")
    why: bool = Field(False, description="give the nearest training examples, and what holds up the answer; slower")
    unknown: bool = Field(True, description="say which inputs are unlike the training data; else unknown is null")
    key: Annotated[str, Field(max_length=256)] | None = Field(
        None, description="what a canary is dealt by, a user's id say; also as the header X-Request-Key"
    )


class PredictMany(Predict):
    """Inputs for several models: they share one pass through each network."""

    models: Annotated[list[Name], Field(min_length=1, max_length=10_000)] | None = Field(
        None, description="names; without it every model that reads such inputs"
    )


class Shown(BaseModel):
    """What the server answers."""

    model_config = ConfigDict(extra="forbid")


class LabelShare(Shown):
    """A label and how likely it is."""

    label: str
    probability: Share


class Prediction(Shown):
    """What a model says of one input."""

    id: str = Field(description="to give feedback to, or to find it in the log")
    label: str | None = Field(None, description="the likeliest; null where no label of several applies")
    probability: Share | None = Field(None, description="of the likeliest label, calibrated")
    unknown: bool | None = Field(description="unlike the training data: do not rely on it. null: not judged")
    labels: list[str] = Field([], description="several labels: those that apply")
    value: float | None = Field(None, description="a number: no label and no probability")
    top: list[LabelShare] = Field([], description="the likeliest labels, where asked for")
    why: dict[str, Any] = Field({}, description="the nearest training examples and what holds up the answer, if asked")


class Predictions(Shown):
    """What one model says of all inputs, in their order."""

    model: str = Field(description="the name that was asked")
    source: str = Field("", description="the model's own name, where it is deployed under another")
    version: Annotated[str, Field(pattern="^v[1-9][0-9]*$")]
    digest: Digest
    predictions: list[Prediction]


class ManyPredictions(Shown):
    """What several models say, in the order asked."""

    models: list[Predictions]


Label = Annotated[str, Field(min_length=1, max_length=1000)]


class Feedback(Sent):
    """What a prediction should have said."""

    id: Annotated[str, Field(min_length=1, max_length=200)] = Field(description="of the prediction")
    label: Label | float | Annotated[list[Label], Field(max_length=1000)] = Field(
        description="a label; several for a model of several labels; a number for a model of numbers"
    )
    replace: bool = Field(False, description="take it in place of another label given before")


class Deploy(Sent):
    """A version of a model that is to answer under a name."""

    model: Name = Field(description="a model of the project")
    version: Annotated[str, Field(pattern="^v[1-9][0-9]{0,8}$")] | None = Field(
        None, description="its current one else"
    )
    as_: Name | None = Field(None, alias="as", description="the name that it answers to; the model's own else")
    shadow: bool = Field(False, description="beside the version in use: answers too, is compared, never returned")
    canary: Annotated[float, Field(gt=0, le=1)] | None = Field(None, description="answers this share of requests")
    expected: Annotated[int, Field(ge=0, le=2**53)] | None = Field(
        None, description="refuse with 409 unless this is the name's seq: nobody changed it meanwhile"
    )


class Change(Sent):
    """A change of a deployment."""

    expected: Annotated[int, Field(ge=0, le=2**53)] | None = Field(
        None, description="refuse with 409 unless it is the seq"
    )


class Pointer(Shown):
    """One version of a model."""

    model: str
    version: str
    digest: Digest


class Compared(Shown):
    """How often a challenger was compared with the version in use, by this process."""

    compared: int
    agreed: int
    skipped: int


class Told(Shown):
    """A process of the server, after a change."""

    pid: int | None
    ok: bool = Field(description="whether it follows")
    detail: str
    serves: bool | None = Field(None, description="whether it serves that name")


class Deployment(Shown):
    """A name and what answers under it."""

    name: str
    live: Pointer | None
    challenger: Pointer | None
    mode: Literal["shadow", "canary"] | None
    share: Share
    seq: Sequence
    counts: Compared | None
    fault: str | None = Field(None, description="why it cannot answer")
    note: str | None = Field(None, description="what to know of the challenger")
    processes: int = Field(1, description="servers of this project that run on this machine")
    servers: list[Told] = Field([], description="after a change: what became of it in each process")
    history: list[dict[str, Any]] = Field([], description="of one name: its last changes")


class Deployments(Shown):
    """All names, and the versions behind them."""

    deployments: list[Deployment]


class Details(Shown):
    """What is known of a model beyond the fields of the OpenAI form."""

    task: Literal["classification", "multilabel", "regression"]
    labels: list[str] = Field(description="among other models the first 100")
    classes: int
    version: str
    digest: Digest
    modality: Literal["text", "image"]
    backbone: str
    fingerprint: str = Field(description="of the network its features come from: equal ones share one pass")
    challenger: Pointer | None
    mode: Literal["shadow", "canary"] | None


class ModelShown(Shown):
    """A model that is served, in the form of OpenAI's API."""

    id: str
    object: Literal["model"]
    created: int = Field(description="unix seconds")
    owned_by: str
    headstart: Details


class Models(Shown):
    """All that is served."""

    object: Literal["list"]
    data: list[ModelShown]


class Given(Shown):
    """Feedback as it is kept."""

    model_config = ConfigDict(extra="allow")
    id: str
    label: Any


class Kept(Shown):
    """A prediction as it is kept, and the feedback to it."""

    model_config = ConfigDict(extra="allow")
    id: str
    model: str
    version: str


class Health(Shown):
    """Alive, or ready."""

    status: str


class Problem(BaseModel):
    """What went wrong, in words (RFC 9457)."""

    model_config = ConfigDict(extra="allow")
    type: str
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    instance: str | None = None


ALL: tuple[type[BaseModel], ...] = (
    Predict, PredictMany, Predictions, ManyPredictions, Feedback, Deploy, Change, Deployment, Deployments, ModelShown,
    Models, Given, Kept, Health, Problem,
)  # fmt: skip
