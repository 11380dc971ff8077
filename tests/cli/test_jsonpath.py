from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.cli.jsonpath import JSONPathError, Template

GATEWAY: dict[str, Any] = {
    "kind": "Gateway",
    "metadata": {"name": "web", "labels": {"app.kubernetes.io/name": "x", "tier": "front"}},
    "spec": {"listeners": [{"name": "a", "port": 80}, {"name": "b", "port": 8081}]},
    "status": {
        "addresses": [{"value": "127.0.0.1"}, {"value": "::1"}],
        "conditions": [
            {"type": "Accepted", "status": "True"},
            {"type": "Programmed", "status": "False"},
        ],
        "ready": True,
        "nothing": None,
    },
}
LIST = {"items": [{"metadata": {"name": "a", "n": 1}}, {"metadata": {"name": "b", "n": 20}}]}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{.status.addresses[0].value}", "127.0.0.1"),
        ("{.status.addresses[-1].value}", "::1"),
        ("{.status.addresses[*].value}", "127.0.0.1 ::1"),
        ("{$.kind}/{.metadata.name}", "Gateway/web"),
        ("{@.kind}", "Gateway"),
        ("{kind}", "Gateway"),
        (".kind", "Gateway"),
        ("plain text", "plain text"),
        ("", ""),
        ("{.spec.listeners[?(@.port==8081)].name}", "b"),
        ("{.spec.listeners[?(@.port > 80)].name}", "b"),
        ("{.spec.listeners[?(@.port<=80)].name}", "a"),
        ('{.status.conditions[?(@.type=="Programmed")].status}', "False"),
        ("{.status.conditions[?(@.type!='Programmed')].status}", "True"),
        ("{.status.conditions[?(@.nothing)].type}", ""),
        ("{.status.conditions[?(@.status)].type}", "Accepted Programmed"),
        ("{.spec.listeners[?('b'==@.name)].port}", "8081"),
        ("{.spec.listeners[?(@.name > 5)].port}", ""),
        (r"{.metadata.labels.app\.kubernetes\.io/name}", "x"),
        ("{.metadata.labels['app.kubernetes.io/name']}", "x"),
        ("{.metadata.labels['app.kubernetes.io/name','tier']}", "x front"),
        ("{['kind']}", "Gateway"),
        ("{.spec.listeners[0,1].port}", "80 8081"),
        ("{.spec.listeners[0:1].port}", "80"),
        ("{.spec.listeners[1:].port}", "8081"),
        ("{.spec.listeners[::2].name}", "a"),
        ("{.spec.listeners[7].port}", ""),
        ("{.nowhere.at.all[0]}", ""),
        ("{..port}", "80 8081"),
        ("{..listeners[0].name}", "a"),
        ("{.spec.listeners[0].*}", "a 80"),
        ("{.spec.listeners[0]}", '{"name":"a","port":80}'),
        ("{.status.ready}", "true"),
        ("{.status.nothing}", "null"),
        ('{"text"} {\'more\'}{"\\n"}', "text more\n"),
        ("{.kind .metadata.name}", "Gatewayweb"),
        (
            '{range .spec.listeners[*]}{.name}={.port}{"\\n"}{end}',
            "a=80\nb=8081\n",
        ),
        ("{range .spec.listeners[*]}{$.kind}-{@.name} {end}!", "Gateway-a Gateway-b !"),
        ("{range .status.addresses[*]}[{range .value}{.}{end}]{end}", "[127.0.0.1][::1]"),
        ("{range .nowhere[*]}x{end}", ""),
        ("{.metadata.rangefinder}{.metadata.endpoint}", ""),
    ],
)
def test_templates_read_as_kubectl_s(template: str, text: str) -> None:
    assert Template(template).render(GATEWAY) == text


def test_every_item_of_a_list() -> None:
    assert Template("{.items[*].metadata.name}").render(LIST) == "a b"
    assert Template("{.items[?(@.metadata.n>3)].metadata.name}").render(LIST) == "b"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{.a", "a { without a }"),
        ("{.a[0}", "a [ without a ]"),
        ("{.a[]}", "an empty []"),
        ("{.a['b}", "a quote is not closed"),
        ("{range .a[*]}x", "a {range} without an {end}"),
        ("{range .a[*]}x{.b}", "a {range} without an {end}"),
        ("{end}", "an {end} without a {range}"),
        ("{.a[?@.b]}", "a filter is written"),
        ("{.a[?(@.b=='c']}", ") is missing"),
        ("{.a[0:5:0]}", "at least 1"),
        ("{..}", "a name is missing"),
        ("{=}", "unexpected '='"),
        ("{" * 50_000, "longer than"),
        ("{range .a}" * 50, "nested too deep"),
    ],
)
def test_a_broken_template_is_said_so_with_its_place(template: str, message: str) -> None:
    with pytest.raises(JSONPathError) as caught:
        Template(template)
    assert message in str(caught.value)


@given(st.text(alphabet="{}[].*'\"@$?()=<>0,:\\ abrangeend\n", max_size=40))
def test_any_text_is_a_template_or_an_error(text: str) -> None:
    try:
        template = Template(text)
    except JSONPathError:
        return
    assert isinstance(template.render(GATEWAY), str)
