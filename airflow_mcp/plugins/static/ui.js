// Language, refreshing, forms of actions, and links that leave Airflow's frame. Everything else is made on the server.
(() => {
  const body = document.body;
  const here = new URL(location.href);

  // Airflow keeps its language in the browser; the server renders the one that the address names.
  let language = "";
  try { language = localStorage.getItem("i18nextLng") || ""; } catch { /* no storage: the address decides */ }
  const primary = (text) => text.split("-")[0].toLowerCase();
  const offered = body.dataset.languages.split(" ").find((each) => primary(each) === primary(language));
  if (offered && offered !== document.documentElement.lang) {
    here.searchParams.set("lang", offered);
    location.replace(here);
    return;
  }

  // The frame's sandbox allows neither pop-ups nor navigation of the outer page; a link made in the outer page may.
  const outside = (address, sameTab) => {
    let owner = document;
    try { owner = window.parent.document; } catch { /* not framed by Airflow */ }
    const link = owner.createElement("a");
    link.href = address;
    if (!sameTab) { link.target = "_blank"; link.rel = "noopener"; }
    owner.body.append(link);
    link.click();
    link.remove();
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-airflow], a[data-outside]");
    if (!link) return;
    event.preventDefault();
    const base = location.pathname.slice(0, location.pathname.indexOf("/mcp/ui/"));
    if (link.dataset.airflow) outside(base + link.dataset.airflow, true);
    else outside(link.dataset.outside, false);
  });

  // Refreshing: an unchanged page costs the server no body, and nothing is swapped under somebody who types.
  let etag = "";
  const say = (text) => { document.getElementById("said").textContent = text; };
  const isBusy = () => document.hidden || document.activeElement?.matches("input, textarea, select");
  const refresh = async () => {
    const wait = Number(body.dataset.refresh) * 1000;
    if (!isBusy() && !document.getElementById("action")) {
      try {
        const answer = await fetch(location.href, { headers: etag ? { "If-None-Match": etag } : {} });
        if (answer.status === 401) { outside(location.href, true); return; }
        if (answer.ok && !isBusy()) {
          const known = etag !== "";
          etag = answer.headers.get("ETag") || "";
          if (known) swap(await answer.text());
        }
      } catch { /* the next try says more */ }
    }
    setTimeout(refresh, wait);
  };
  const swap = (text) => {
    const page = new DOMParser().parseFromString(text, "text/html");
    const open = [...document.querySelectorAll("details[open]")].map((each) => each.querySelector("summary").textContent);
    const focused = document.activeElement?.getAttribute("href");
    document.getElementById("main").replaceChildren(...page.getElementById("main").childNodes);
    document.querySelector("footer").replaceChildren(...page.querySelector("footer").childNodes);
    body.dataset.refresh = page.body.dataset.refresh;
    for (const each of document.querySelectorAll("details")) {
      each.open = open.includes(each.querySelector("summary").textContent);
    }
    if (focused) [...document.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
    say(body.dataset.changed);
  };
  setTimeout(refresh, Number(body.dataset.refresh) * 1000);

  // A disabled button keeps its place in the tab order, so that its reason can be read; it does nothing.
  document.addEventListener("click", (event) => {
    if (event.target.closest("[aria-disabled=true]")) event.preventDefault();
  });

  const form = document.getElementById("action");
  if (!form) return;
  const problem = document.getElementById("problem");
  form.elements.version?.addEventListener("change", () => {
    here.searchParams.set("version", form.elements.version.value);
    location.replace(here);
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const buttons = form.querySelectorAll("button");
    for (const each of buttons) each.disabled = true;
    problem.textContent = "";
    try {
      const answer = await fetch(location.pathname + location.search, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({
          key: form.dataset.key,
          expected_champion: form.dataset.champion,
          version: form.elements.version ? form.elements.version.value : "",
          reason: form.elements.reason.value,
          option: event.submitter?.value || "",
        }),
      });
      const said = await answer.json();
      if (answer.ok) { location.assign(said.page); return; }
      problem.textContent = said.detail || said.title;
    } catch {
      problem.textContent = body.dataset.failed;
    }
    for (const each of buttons) each.disabled = false;
    problem.focus();
  });
})();
