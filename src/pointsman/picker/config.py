"""EndpointPickerConfig: the picker's configuration, as the reference picker writes it.

All that is wrong is told at once, each with its place and, for unknown names, the nearest known
one. Both API groups are read. What is left out takes the reference's defaults, except that without
any configuration the picker uses its own default profile.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from pointsman.picker.endpoints.measures import NOTHING_MORE, Extraction
from pointsman.picker.flow.saturation import Detector, saturation
from pointsman.picker.scheduling import plugins
from pointsman.picker.scheduling.media import MediaMemory
from pointsman.picker.scheduling.parameters import Admitter, Attribute, Plugin
from pointsman.picker.scheduling.plugins import ENTRY_POINTS, LATER, WITHOUT_EFFECT, Factory
from pointsman.picker.scheduling.profile import (
    DEFAULT,
    NamedFilter,
    Picking,
    Profile,
    WeightedScorer,
)

API_VERSIONS = ("llm-d.ai/v1alpha1", "inference.networking.x-k8s.io/v1alpha1")
KIND = "EndpointPickerConfig"
MAX_CONFIG_BYTES = 1024 * 1024
GATES = {"flowControl": False, "haPopulateNonLeaderDatastore": False}
"""The reference's feature gates and whether they are on."""


class ConfigError(Exception):
    """The configuration is wrong; `problems` are all of its faults."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class PickerConfig:
    """How the picker decides."""

    profiles: Mapping[str, Profile] = field(default_factory=lambda: {"default": DEFAULT})
    default_profile: str = "default"
    profile_header: str | None = None
    """The request header that names a profile; None where there is one profile for all."""
    detector: Detector = saturation
    admitters: tuple[Admitter, ...] = ()
    """Who may turn away requests of a priority below 0."""
    attributes: tuple[Attribute, ...] = ()
    """What is found in requests' headers and shown beside them."""
    extraction: Extraction = NOTHING_MORE
    """Which metrics of servers are read beside those that are known."""
    notes: tuple[str, ...] = ()
    """What was read and changes nothing, in words."""

    @property
    def answers_headers(self) -> bool:
        """Whether some answers get a header from the picker."""
        return any(profile.token_headers for profile in self.profiles.values())

    def profile(self, headers: Mapping[str, str]) -> Profile | None:
        """The profile for a request; None if its header names none that exists."""
        if self.profile_header is None or len(self.profiles) == 1:
            return self.profiles[self.default_profile]
        return self.profiles.get(headers.get(self.profile_header, self.default_profile))


class _Strict(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, populate_by_name=True
    )


class _PluginSpec(_Strict):
    type: str
    name: str = ""
    parameters: dict[str, Any] | None = None


class _PluginRef(_Strict):
    plugin_ref: str
    weight: float | None = Field(None, ge=0)


class _ProfileSpec(_Strict):
    name: str = Field(min_length=1)
    plugins: tuple[_PluginRef, ...] = ()


class _Source(_Strict):
    plugin_ref: str
    extractors: tuple[_PluginRef, ...] = ()


class _DataLayer(_Strict):
    inject_defaults: bool = True
    sources: tuple[_Source, ...] = ()


class _Reference(_Strict):
    plugin_ref: str


class _FlowControl(_Strict):
    saturation_detector: _Reference | None = None


class _RequestHandler(_Strict):
    parsers: tuple[_Reference, ...] = ()


class _Spec(_Strict):
    api_version: str
    kind: str
    metadata: dict[str, Any] | None = None
    feature_gates: tuple[str, ...] = ()
    plugins: tuple[_PluginSpec, ...] = ()
    scheduling_profiles: tuple[_ProfileSpec, ...] = ()
    data_layer: _DataLayer | None = None
    flow_control: _FlowControl | None = None
    request_handler: _RequestHandler | None = None
    saturation_detector: _Reference | None = None
    parser: _Reference | None = None


def read_config(text: str) -> PickerConfig:
    """Read a configuration.

    Raises:
        ConfigError: with every fault that was found.
    """
    if len(text) > MAX_CONFIG_BYTES:
        raise ConfigError([f"the configuration is larger than {MAX_CONFIG_BYTES} bytes"])
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError([f"this is not YAML: {error}"]) from error
    try:
        spec = _Spec.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_faults(error, _Spec, "")) from error
    return _Reader(spec).config()


class _Reader:
    """Turns a specification into a configuration, gathering faults on the way."""

    def __init__(self, spec: _Spec) -> None:
        self._spec = spec
        self._problems: list[str] = []
        self._factories = {**plugins.factories(), **_own_plugins(self._problems)}
        self._plugins: dict[str, Plugin] = {}
        self._notes: list[str] = []

    def config(self) -> PickerConfig:
        spec = self._spec
        if spec.api_version not in API_VERSIONS:
            self._fault("apiVersion", f"must be {API_VERSIONS[0]}, is {spec.api_version!r}")
        if spec.kind != KIND:
            self._fault("kind", f"must be {KIND}, is {spec.kind!r}")
        self._read_gates()
        for place, plugin in enumerate(spec.plugins):
            self._read_plugin(f"plugins[{place}]", plugin)
        profiles = self._profiles()
        detector = self._detector()
        self._check_references()
        config = self._handled(self._gathered(profiles, detector))
        if self._problems:
            raise ConfigError(self._problems)
        return config

    def _gathered(self, profiles: Mapping[str, Profile], detector: Detector) -> PickerConfig:
        """What plugins do that belong to no profile."""
        every = list(self._plugins.values())
        told = [plugin.media_items for plugin in every if plugin.media_items]
        for plugin in every if told else ():
            if isinstance(plugin.listener, MediaMemory):
                plugin.listener.capacity = told[-1]
        extractions = [plugin.extraction for plugin in every if plugin.extraction is not None]
        return PickerConfig(
            profiles,
            next(iter(profiles)),
            detector=detector,
            admitters=tuple(plugin.admitter for plugin in every if plugin.admitter is not None),
            attributes=tuple(plugin.attribute for plugin in every if plugin.attribute is not None),
            extraction=extractions[-1] if extractions else NOTHING_MORE,
            notes=tuple(self._notes),
        )

    def _fault(self, place: str, what: str) -> None:
        self._problems.append(f"{place}: {what}")

    def _read_gates(self) -> None:
        for place, text in enumerate(self._spec.feature_gates):
            name, _, value = text.partition("=")
            if name not in GATES:
                self._fault(f"featureGates[{place}]", _unknown("feature gate", name, GATES))
            elif name == "flowControl" and value != "false":
                self._fault(f"featureGates[{place}]", "queues are not part of this version yet")

    def _read_plugin(self, place: str, plugin: _PluginSpec) -> None:
        name = plugin.name or plugin.type
        if name in self._plugins:
            self._fault(f"{place}.name", f"{name!r} is the name of an earlier plugin")
            return
        # A plugin that is wrong is known all the same, so that references to it are no faults.
        self._plugins[name] = Plugin()
        factory = self._factories.get(plugin.type)
        if factory is None:
            if plugin.type in LATER:
                what = f"{plugin.type} is not part of this version yet: {LATER[plugin.type]}"
                self._fault(f"{place}.type", what)
            else:
                self._fault(f"{place}.type", _unknown("plugin type", plugin.type, self._factories))
            return
        try:
            self._plugins[name] = factory(plugin.parameters or {})
        except ValidationError as error:
            model = plugins.PARAMETERS.get(plugin.type)
            self._problems += _faults(error, model, f"{place}.parameters")
        except Exception as error:  # someone else's code may raise anything
            self._fault(f"{place}.parameters", f"{type(error).__name__}: {error}")
        else:
            self._note(place, plugin, is_built_in=self._plugins[name].is_built_in)

    def _note(self, place: str, plugin: _PluginSpec, *, is_built_in: bool) -> None:
        """Say what is read and changes nothing: all of what is built in, some of the others."""
        given = plugin.parameters or {}
        idle = WITHOUT_EFFECT.get(plugin.type, frozenset())
        names = list(given) if is_built_in else [name for name in _keys(given) if name in idle]
        if names:
            listed = ", ".join(dict.fromkeys(names))
            self._notes.append(f"{place} ({plugin.type}): without effect here: {listed}")

    def _find(self, place: str, name: str) -> Plugin:
        found = self._plugins.get(name)
        if found is None:
            # The reference accepts the name of a type that needs no parameters as a reference.
            self._fault(place, _unknown("plugin", name, self._plugins))
            return Plugin()
        return found

    def _profiles(self) -> dict[str, Profile]:
        specs = self._spec.scheduling_profiles
        if not specs:
            if not self._spec.plugins:
                return {"default": DEFAULT}
            every = tuple(_PluginRef(plugin_ref=name) for name in self._plugins)
            specs = (_ProfileSpec(name="default", plugins=every),)
        profiles: dict[str, Profile] = {}
        for place, spec in enumerate(specs):
            where = f"schedulingProfiles[{place}]"
            if spec.name in profiles:
                self._fault(f"{where}.name", f"{spec.name!r} is the name of an earlier profile")
            profiles[spec.name] = self._profile(where, spec)
        return profiles

    def _profile(self, where: str, spec: _ProfileSpec) -> Profile:
        profile = Profile(max_endpoints=1)
        picked_by = None
        for place, reference in enumerate(spec.plugins):
            at = f"{where}.plugins[{place}]"
            name = reference.plugin_ref
            plugin = self._find(f"{at}.pluginRef", name)
            if plugin.filter is not None:
                profile = replace(
                    profile, filters=(*profile.filters, NamedFilter(name, plugin.filter))
                )
            if plugin.scorer is not None:
                weight = 1.0 if reference.weight is None else reference.weight
                scorer = WeightedScorer(name, plugin.scorer, weight)
                profile = replace(profile, scorers=(*profile.scorers, scorer))
            if plugin.picking is not None:
                if picked_by is not None:
                    self._fault(at, f"the profile already has the picker {picked_by!r}")
                picked_by = name
                profile = replace(
                    profile, picking=plugin.picking, max_endpoints=plugin.max_endpoints
                )
            if plugin.listener is not None and plugin.listener not in profile.listeners:
                profile = replace(profile, listeners=(*profile.listeners, plugin.listener))
            if plugin.token_header and plugin.token_header not in profile.token_headers:
                tokens = (*profile.token_headers, plugin.token_header)
                profile = replace(profile, token_headers=tokens)
            if plugin.reads_media:
                profile = replace(profile, reads_media=True)
            if plugin.reads_headers:
                profile = replace(profile, reads_headers=True)
        return profile if picked_by is not None else replace(profile, picking=Picking.MAX_SCORE)

    def _detector(self) -> Detector:
        spec = self._spec
        reference, place = spec.saturation_detector, "saturationDetector"
        if spec.flow_control is not None and spec.flow_control.saturation_detector is not None:
            reference = spec.flow_control.saturation_detector
            place = "flowControl.saturationDetector"
        if reference is None:
            return saturation
        plugin = self._find(f"{place}.pluginRef", reference.plugin_ref)
        if plugin.detector is None:
            self._fault(f"{place}.pluginRef", f"{reference.plugin_ref!r} is no detector")
            return saturation
        return plugin.detector

    def _check_references(self) -> None:
        spec = self._spec
        for place, source in enumerate(spec.data_layer.sources if spec.data_layer else ()):
            at = f"dataLayer.sources[{place}]"
            self._find(f"{at}.pluginRef", source.plugin_ref)
            for number, extractor in enumerate(source.extractors):
                self._find(f"{at}.extractors[{number}].pluginRef", extractor.plugin_ref)
        parsers = spec.request_handler.parsers if spec.request_handler else ()
        for place, parser in enumerate(parsers):
            self._find(f"requestHandler.parsers[{place}].pluginRef", parser.plugin_ref)
        if spec.parser is not None:
            self._find("parser.pluginRef", spec.parser.plugin_ref)

    def _handled(self, config: PickerConfig) -> PickerConfig:
        handlers = [each for each in self._plugins.values() if each.profile_header is not None]
        if len(config.profiles) == 1:
            return config
        if not handlers:
            what = "several profiles need a plugin of type header-profile-handler"
            self._fault("schedulingProfiles", what)
            return config
        handler = handlers[0]
        default = handler.default_profile or ""
        if default not in config.profiles:
            self._fault(
                "plugins", f"the default profile {_unknown('profile', default, config.profiles)}"
            )
        return replace(config, profile_header=handler.profile_header, default_profile=default)


def _own_plugins(problems: list[str]) -> dict[str, Factory]:
    """The plugins that installed packages offer."""
    found: dict[str, Factory] = {}
    for point in entry_points(group=ENTRY_POINTS):
        try:
            found[point.name] = point.load()
        except Exception as error:  # someone else's code may raise anything
            problems.append(f"the plugin {point.name!r} ({point.value}) cannot be loaded: {error}")
    return found


def _keys(value: Any) -> Iterator[str]:
    """Every key in parameters, however deep."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{what} {name!r} is not known{hint}"


def _faults(error: ValidationError, model: type[BaseModel] | None, prefix: str) -> list[str]:
    """Every fault of a validation, in the user's terms."""
    faults = []
    for item in error.errors(include_url=False):
        place = _place(item["loc"], prefix)
        if item["type"] == "extra_forbidden":
            name = str(item["loc"][-1])
            owner = _owner(model, item["loc"][:-1])
            fields = [f.alias or key for key, f in owner.model_fields.items()] if owner else []
            faults.append(f"{place}: {_unknown('field', name, fields)}")
        else:
            faults.append(f"{place}: {item['msg']}")
    return faults


def _place(parts: tuple[int | str, ...], prefix: str) -> str:
    place = prefix
    for part in parts:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else part
    return place or "the configuration"


def _owner(model: type[BaseModel] | None, parts: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The model of the value at a place, as far as it can be told from the annotations."""
    for part in parts:
        if model is None:
            return None
        if isinstance(part, int):
            continue
        info = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        model = _model_in(info.annotation) if info is not None else None
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
