"""The status page in a real browser: it renders, follows, is silent, and says when it is blind."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.admin_double import NAMES, AdminDouble
from tests.long_tests import LONG, long

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip

PATIENCE_S = 60
"""How long a page may take to show something on a busy machine."""

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium"),
    pytest.mark.slow(seconds=5),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=1000 * PATIENCE_S)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def double() -> Iterator[AdminDouble]:
    with AdminDouble() as process:
        yield process


class Visit:
    """An open page and what its console said."""

    def __init__(
        self,
        browser: Browser,
        double: AdminDouble,
        scheme: str,
        width: int,
        *,
        bypass_csp: bool = False,
    ) -> None:
        self.context = browser.new_context(
            color_scheme="dark" if scheme == "dark" else "light",
            viewport={"width": width, "height": 900},
            bypass_csp=bypass_csp,  # for tests that run a script of their own in the page
        )
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(f"http://{double.address}/")


VIEWS = [("light", 1360), ("dark", 390), ("dark", 1360), ("light", 820)][: None if LONG else 1]
SCENES = ["ready", "wrong", "draining"]
WINDOWS = [("light", 1280), ("dark", 1280), ("dark", 390)]
EXAMINED = [
    (scene, *window)
    for n, scene in enumerate(SCENES)
    for m, window in enumerate(WINDOWS)
    if LONG or n == m
]
"""Every scene and every window once; in ``make stress`` every scene in every window."""


@pytest.fixture(params=VIEWS)
def visit(browser: Browser, double: AdminDouble, request: pytest.FixtureRequest) -> Iterator[Visit]:
    visit = Visit(browser, double, *request.param)
    yield visit
    visit.context.close()


def test_it_renders_without_a_complaint_and_fits(visit: Visit, double: AdminDouble) -> None:
    """Every part has its figures; nothing sticks out sideways; nothing comes from elsewhere."""
    page = visit.page
    expect(page.locator("#state")).to_have_text("ready")
    expect(page.locator("tr[data-endpoint]")).to_have_count(3)
    expect(page.locator("tr[data-slot]")).to_have_count(2)
    expect(page.locator("#tile-endpoints")).to_contain_text("3 / 3")
    expect(page.locator("#discovery")).to_contain_text("SRV records of example.com")
    expect(page.locator("#identity")).to_contain_text("127.0.0.1:23790")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert visit.complaints == []
    assert {url.removeprefix(f"http://{double.address}/") for url in visit.requests} <= {
        "",
        "status",
        "data:,",
    } | {url for url in visit.requests if url.startswith("data:")}


def test_it_follows_an_endpoint_down_and_up_again(visit: Visit, double: AdminDouble) -> None:
    """Row, tile and the word for screen readers change by themselves, in place."""
    page = visit.page
    row = page.locator(f'tr[data-endpoint="{NAMES[0]}"]')
    expect(row).to_have_attribute("data-state", "active")
    double.tell(f"endpoint {NAMES[0]} inactive")
    expect(row).to_have_attribute("data-state", "inactive")
    expect(row).to_contain_text("dial: connection refused")
    expect(page.locator("#tile-endpoints")).to_contain_text("2 / 3")
    expect(page.locator("#said")).to_have_text(f"{NAMES[0]} is now inactive")
    expect(page.locator("#events")).to_contain_text("deactivated endpoint")
    double.tell(f"endpoint {NAMES[0]} active")
    expect(row).to_have_attribute("data-state", "active")
    expect(page.locator("#said")).to_have_text(f"{NAMES[0]} is now active")
    double.tell(f"remove {NAMES[0]}")
    expect(row).to_have_count(0)
    assert visit.complaints == []


@pytest.mark.parametrize("visit", [("dark", 1360)], indirect=True)
def test_it_shows_rates_and_a_degraded_gateway(visit: Visit, double: AdminDouble) -> None:
    """Traffic becomes a rate; no active endpoint and a lost worker are spelled out."""
    page = visit.page
    expect(page.locator("#state")).to_have_text("ready")
    double.tell(f"traffic {NAMES[0]} 12 5000000")
    row = page.locator(f'tr[data-endpoint="{NAMES[0]}"]')
    expect(row).to_contain_text("MiB/s")
    page.get_by_role("button", name="Pause").click()
    for _ in range(2):  # showing the same figures again makes no rate unknown
        page.get_by_role("button", name="Only what is wrong").click()
    expect(row.locator('td[data-label="In"]')).to_contain_text("/s")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#tile-sessions")).to_contain_text("12")
    for name in NAMES:
        double.tell(f"endpoint {name} inactive")
    double.tell("worker 1 backoff")
    expect(page.locator("#state")).to_have_text("degraded")
    expect(page.locator("#why li")).to_have_text(
        ["no endpoint is active", "no live worker in slot 1"]
    )
    expect(page.locator("#sentence")).to_have_text("0 of 3 endpoints active, 1 of 2 workers ready")
    double.tell("drain")
    expect(page.locator("#state")).to_have_text("draining")
    assert visit.complaints == []


@pytest.mark.parametrize("visit", [("light", 1360)], indirect=True)
def test_it_says_when_the_gateway_is_out_of_reach(visit: Visit, double: AdminDouble) -> None:
    """An alert, the word in the title, and the time of what is still shown."""
    page = visit.page
    expect(page.locator("#state")).to_have_text("ready")
    double.process.kill()
    expect(page.get_by_role("alert")).to_contain_text("The gateway does not answer.")
    expect(page.get_by_role("alert")).to_contain_text("It was last seen at")
    expect(page).to_have_title("unreachable · gw1.example.com · etcd-gateway")
    expect(page.locator("tr[data-endpoint]")).to_have_count(3)


@pytest.mark.parametrize("visit", [("light", 1360)], indirect=True)
def test_it_needs_no_mouse(visit: Visit, double: AdminDouble) -> None:
    """Tab reaches the skip link first, then the buttons; they work with the keyboard."""
    page = visit.page
    expect(page.locator("#state")).to_have_text("ready")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the figures")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Pause")
    page.keyboard.press("Enter")
    expect(page.locator("#link")).to_have_text("paused")
    expect(page.locator("#pause")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Space")
    expect(page.locator("#link")).to_have_text("live")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert visit.complaints == []


@pytest.mark.parametrize("visit", [("light", 1360)], indirect=True)
def test_names_are_text_and_never_markup(visit: Visit, double: AdminDouble) -> None:
    """What DNS or a log line holds cannot become part of the page."""
    double.tell("event <img src=x onerror=alert(1)><b>bold</b>")
    events = visit.page.locator("#events")
    expect(events).to_contain_text("<img src=x onerror=alert(1)><b>bold</b>")
    expect(events.locator("img, b")).to_have_count(0)
    assert visit.complaints == []


@pytest.mark.parametrize("visit", [("light", 1360)], indirect=True)
def test_thousands_of_endpoints_are_found_by_name(visit: Visit, double: AdminDouble) -> None:
    """Fifty rows of a class are shown, what is inactive first; the rest by search or a button."""
    page = visit.page
    expect(page.locator("#state")).to_have_text("ready")
    double.tell("many 3000")
    expect(page.locator("#tile-endpoints")).to_contain_text("3003 / 3003")
    rows = page.locator("tr[data-endpoint]")
    expect(rows).to_have_count(51)
    double.tell("endpoint member2999.example.com:2379 inactive")
    expect(rows.first).to_have_attribute("data-endpoint", "member2999.example.com:2379")
    page.get_by_role("searchbox", name="Find an endpoint").fill("member1234.")
    expect(rows).to_have_count(1)
    double.tell("refuse unix:/run/ETCD.sock our own listen address")
    page.get_by_role("searchbox", name="Find an endpoint").fill("/run/ETCD")
    expect(page.locator("tr[data-refused]")).to_have_count(1)
    expect(rows).to_have_count(0)
    assert visit.complaints == []


@pytest.mark.parametrize("visit", [("light", 1280)], indirect=True)
def test_the_host_is_named(visit: Visit, double: AdminDouble) -> None:
    """Whoever has ten of these pages open sees in the title and the header which one it is."""
    page = visit.page
    expect(page).to_have_title("ready · gw1.example.com · etcd-gateway")
    expect(page.locator("h1")).to_have_text("etcd-gateway on gw1.example.com")


@pytest.mark.parametrize("visit", [("dark", 1280)], indirect=True)
def test_a_drain_has_a_deadline_and_serves_nobody(visit: Visit, double: AdminDouble) -> None:
    """What is left and when it is cut, counting down; no class is used for new sessions."""
    page = visit.page
    expect(page.locator("#endpoints")).to_contain_text("used for new sessions")
    double.tell(f"traffic {NAMES[0]} 120 5000")
    double.tell("drain 24")
    expect(page.locator("#why")).to_contain_text("Draining: 120 sessions left, cut in 2")
    expect(page.locator("#endpoints")).not_to_contain_text("used for new sessions")
    assert visit.complaints == []


@pytest.mark.parametrize("visit", [("dark", 390), long(("light", 1280))], indirect=True)
def test_what_is_wrong_comes_first_and_can_be_shown_alone(
    visit: Visit, double: AdminDouble
) -> None:
    """Six of forty are down: they are on top, sorted by their numbers, and alone on demand."""
    page = visit.page
    double.tell("many 37")
    double.tell("workers 16")
    double.tell("worker 7 backoff")
    double.tell("refuse plain.example.com:2379 does not speak TLS")
    down = [f"member{number}.example.com:2379" for number in (2, 7, 10, 11, 30, 36)]
    for name in reversed(down):
        double.tell(f"endpoint {name} inactive")
    expect(page.locator("#sentence")).to_have_text(
        "34 of 40 endpoints active, 15 of 16 workers ready"
    )
    rows = page.locator("tr[data-endpoint]")
    first = [rows.nth(i).get_attribute("data-endpoint") for i in range(6)]
    assert first == down
    expect(page.locator("tr[data-slot]").first).to_have_attribute("data-slot", "7")
    expect(page.locator("tr[data-refused]")).to_contain_text("does not speak TLS")
    page.get_by_role("button", name="Only what is wrong").click()
    expect(rows).to_have_count(6)
    expect(page.locator("tr[data-slot]")).to_have_count(1)
    expect(page.locator("tr[data-refused]")).to_be_visible()
    for name in down:
        double.tell(f"endpoint {name} active")
    expect(rows).to_have_count(0)
    page.get_by_role("button", name="Only what is wrong").click()
    expect(rows).to_have_count(40)
    assert visit.complaints == []


@pytest.mark.parametrize("visit", [("light", 1280)], indirect=True)
def test_an_address_that_is_down_is_named(visit: Visit, double: AdminDouble) -> None:
    """An endpoint with an inactive address is active, and still among what is wrong."""
    page = visit.page
    double.tell(f"half {NAMES[1]} 10.0.1.99 connection refused")
    row = page.locator(f'tr[data-endpoint="{NAMES[1]}"]')
    expect(row).to_contain_text("10.0.1.99 inactive: connection refused")
    page.get_by_role("button", name="Only what is wrong").click()
    expect(page.locator("tr[data-endpoint]")).to_have_count(1)
    assert visit.complaints == []


@pytest.mark.parametrize("visit", [("light", 1280)], indirect=True)
def test_a_member_without_space_is_degraded(visit: Visit, double: AdminDouble) -> None:
    """It is active, comes first, and says what is wrong; its version is told."""
    page = visit.page
    row = page.locator(f'tr[data-endpoint="{NAMES[1]}"]')
    double.tell(f"degrade {NAMES[1]} NOSPACE")
    expect(row).to_contain_text("degraded: NOSPACE")
    expect(row).to_contain_text("etcd 3.5.1")
    expect(row).to_have_attribute("data-state", "active")
    expect(page.locator("tr[data-endpoint]").first).to_have_attribute("data-endpoint", NAMES[1])
    expect(page.locator("#state")).to_have_text("ready")
    assert visit.complaints == []


def test_certificates_have_a_column_if_there_are_any(visit: Visit, double: AdminDouble) -> None:
    """How long each lasts, and marked if that is not long."""
    page = visit.page
    cells = page.locator("td.certificate")
    expect(cells.first).to_be_hidden()
    double.tell(f"certificate {NAMES[0]} 9.5")
    double.tell(f"certificate {NAMES[1]} 90.5")
    row = page.locator(f'tr[data-endpoint="{NAMES[0]}"]')
    expect(row.locator("td.certificate")).to_have_text("ends in 9 d 11 h")
    expect(row.locator("td.soon")).to_have_count(1)
    expect(page.locator("td.soon")).to_have_count(1)
    double.tell(f"certificate {NAMES[0]} -1")
    expect(row.locator("td.certificate")).to_have_text("ended")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert visit.complaints == []


def test_static_endpoints_have_no_weight(visit: Visit, double: AdminDouble) -> None:
    """What no record said is not shown: neither a weight of 0 nor a priority of 0."""
    page = visit.page
    expect(page.locator("#endpoints")).to_contain_text("weight 5")
    double.tell("static")
    expect(page.locator("#discovery")).to_contain_text("the --endpoints list")
    expect(page.locator("#endpoints")).not_to_contain_text("weight")
    expect(page.get_by_text("Priority 0")).not_to_be_visible()


@pytest.mark.parametrize("visit", [("light", 1280)], indirect=True)
def test_the_configuration_is_shown_with_its_sources(visit: Visit, double: AdminDouble) -> None:
    """What is not the default, with what it overrides; everything on demand."""
    page = visit.page
    rows = page.locator("#configuration tbody tr")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("workers")
    expect(rows).to_contain_text("command line")
    expect(rows).to_contain_text("ignored, config file: 4")
    page.get_by_role("button", name="Show defaults").click()
    expect(rows).to_have_count(2)
    double.tell("set balance least-sessions variable")
    expect(page.locator("#configuration-note")).to_have_text("2 of 2 values are set")


AXE = Path(sys.prefix) / "axe" / "node_modules" / "axe-core" / "axe.min.js"


@pytest.mark.skipif(not AXE.exists(), reason="needs npm's axe-core")
@pytest.mark.parametrize(("scene", "scheme", "width"), EXAMINED)
def test_axe_finds_nothing(
    browser: Browser, double: AdminDouble, scene: str, scheme: str, width: int
) -> None:
    """axe-core has no complaint, with forty endpoints and sixteen workers, in every situation."""
    double.tell("many 37")
    double.tell("workers 16")
    if scene != "ready":
        double.tell("endpoint member3.example.com:2379 inactive")
        double.tell("worker 3 backoff")
        double.tell("refuse plain.example.com:2379 does not speak TLS")
    if scene == "draining":
        double.tell("drain 24")
    visit = Visit(browser, double, scheme, width, bypass_csp=True)
    expect(visit.page.locator("tr[data-slot]")).to_have_count(16)
    visit.page.evaluate(AXE.read_text())
    found = visit.page.evaluate("axe.run()")
    assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
    visit.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(
    browser: Browser, double: AdminDouble, scheme: str
) -> None:
    """WCAG AA: 4.5 to 1 for every colour that text is written in, on card and ground."""
    visit = Visit(browser, double, scheme, 1360)
    ratios = visit.page.evaluate(
        """() => {
            const style = getComputedStyle(document.documentElement);
            const light = (name) => {
                const hex = style.getPropertyValue(name).trim();
                const part = (i) => parseInt(hex.slice(i, i + 2), 16) / 255;
                const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
                const [r, g, b] = [1, 3, 5].map((i) => linear(part(i)));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const out = {};
            for (const ink of ["--text", "--muted", "--good", "--warn", "--bad", "--accent"])
                for (const ground of ["--card", "--ground", "--raised"]) {
                    const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
                    out[ink + " on " + ground] = (a + 0.05) / (b + 0.05);
                }
            return out;
        }"""
    )
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}
    visit.context.close()
