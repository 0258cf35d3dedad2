// Conduit console behaviour. One module; Chart.js (window.Chart) and htmx are loaded before it with defer.
// Progressive: without it every page still reads, links, filters and submits. Nothing here writes markup from data.

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const announce = (text) => { const live = $("#live"); if (live) live.textContent = text; };

// ---- theme: light, dark, or follow the system. The server reads the cookie and sets data-bs-theme, so nothing flashes.
function setTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.bsTheme;
  else document.documentElement.dataset.bsTheme = theme;
  document.cookie = `theme=${theme};path=/;max-age=31536000;samesite=lax`;
  $$("[data-theme]").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.theme === theme)));
  drawCharts();
}

// ---- charts: data in <script type="application/json" id="NAME">, drawn into <canvas data-chart="NAME">
const probe = document.createElement("i");
const token = (name) => { // resolves light-dark() for the theme in force
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
};
const money = (v) => {
  if (v > 0 && v < 0.0001) return "<$0.0001";
  const digits = Math.abs(v) >= 1 || v === 0 ? 2 : 4;
  return "$" + v.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
};
const compact = (v) => Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 }).format(v);
const axisMoney = (v, _index, ticks) => { // as many digits as the distance of two ticks needs
  if (v >= 1000) return "$" + compact(v);
  const step = ticks?.length > 1 ? Math.abs(ticks[1].value - ticks[0].value) : 1;
  let digits = Number.isInteger(step) ? 0 : 2;
  while (digits < 9 && Math.abs(step * 10 ** digits - Math.round(step * 10 ** digits)) > 1e-6) digits += 1;
  return "$" + v.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
};
const UNITS = {
  usd: [money, axisMoney], count: [(v) => v.toLocaleString("en-US"), compact],
  ms: [(v) => `${v.toLocaleString("en-US")} ms`, (v) => `${v} ms`], percent: [(v) => `${v} %`, (v) => `${v} %`],
};
const drawn = new Map();

function drawChart(canvas) {
  const source = document.getElementById(canvas.dataset.chart);
  if (!source || !window.Chart) return;
  const spec = JSON.parse(source.textContent);
  const [full, axis] = UNITS[spec.unit];
  const font = { family: getComputedStyle(document.body).fontFamily, size: 11 };
  const grid = token("line"), text = token("ink-3"), surface = token("surface");
  const datasets = spec.series.map((s) => {
    const color = token(s.color);
    const line = s.line || spec.kind === "line";
    return {
      type: line ? "line" : "bar", label: s.name, data: line ? s.data : s.data.map((v) => v || null), order: line ? 0 : 1, stack: line ? s.name : "bars",
      backgroundColor: color, hoverBackgroundColor: color, borderColor: line ? color : surface,
      borderWidth: line ? 1.75 : { top: spec.dense ? 0 : 1 }, minBarLength: line ? 0 : 2, // non-zero is never invisible
      borderDash: s.dash || [], pointRadius: 0, pointHoverRadius: 3, tension: 0, stepped: s.stepped || false,
      barPercentage: spec.dense ? 1 : 0.86, categoryPercentage: spec.dense ? 0.92 : 0.9, spanGaps: false,
    };
  });
  drawn.get(canvas)?.destroy();
  drawn.delete(canvas);
  drawn.set(canvas, new window.Chart(canvas, {
    data: { labels: spec.labels, datasets },
    options: {
      responsive: true, maintainAspectRatio: false, animation: false, font,
      interaction: { mode: "index", intersect: false },
      scales: {
        x: { stacked: true, grid: { display: false }, border: { color: token("line-2") },
          ticks: { color: text, font, maxRotation: 0, autoSkipPadding: 16 } },
        y: { stacked: true, beginAtZero: true, suggestedMax: spec.max, border: { display: false }, grid: { color: grid, drawTicks: false },
          ticks: { color: text, font, padding: 8, maxTicksLimit: 5, callback: axis } },
      },
      plugins: {
        legend: { display: false }, // the legend is HTML in the page
        tooltip: {
          backgroundColor: token("ink"), titleColor: surface, bodyColor: surface, footerColor: surface, bodyFont: font, titleFont: font, footerFont: font,
          padding: 10, cornerRadius: 6, multiKeyBackground: "transparent", boxWidth: 8, boxHeight: 8, filter: (item) => item.raw,
          itemSort: (a, b) => (a.dataset.type === "line") - (b.dataset.type === "line") || b.raw - a.raw,
          callbacks: {
            labelColor: (c) => ({ backgroundColor: c.dataset.type === "line" ? c.dataset.borderColor : c.dataset.backgroundColor, borderColor: "transparent", borderWidth: 0 }),
            label: (c) => ` ${c.dataset.label}  ${full(c.raw)}`,
            footer: (items) => {
              const bars = items.filter((i) => i.dataset.type === "bar");
              return bars.length > 1 ? `Total  ${full(bars.reduce((sum, i) => sum + i.raw, 0))}` : "";
            },
          },
        },
      },
    },
  }));
}
function drawCharts(root = document) {
  for (const [canvas, chart] of drawn) if (!canvas.isConnected) { chart.destroy(); drawn.delete(canvas); }
  document.body.append(probe);
  $$("canvas[data-chart]", root).forEach(drawChart);
  probe.remove();
}

// ---- copy, tabs, dialogs (menus are native popovers)
async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  await navigator.clipboard.writeText((source.value ?? source.textContent).trim());
  announce("Copied");
  const use = $("use", button), before = use.getAttribute("href");
  use.setAttribute("href", before.replace(/#.*/, "#check"));
  setTimeout(() => use.setAttribute("href", before), 1600);
}
function selectTab(tab) {
  $$("[role=tab]", tab.parentElement).forEach((t) => {
    t.setAttribute("aria-selected", String(t === tab));
    t.tabIndex = t === tab ? 0 : -1;
    document.getElementById(t.getAttribute("aria-controls")).hidden = t !== tab;
  });
  tab.focus();
}
function openDialog(id) {
  const dialog = document.getElementById(id);
  if (!dialog || dialog.open) return;
  dialog.showModal();
  $("input:not([type=hidden])", dialog)?.select();
}
function setKeys(on) {
  document.body.dataset.keys = on ? "on" : "off";
  document.cookie = `keys=${on ? "on" : "off"};path=/;max-age=31536000;samesite=lax`;
  announce(on ? "Single keys are on" : "Single keys are off");
}
function setExpiry(button) { // a preset fills the date; the date is what is sent
  const field = $(button.dataset.for), days = Number(button.dataset.days);
  field.value = days ? new Date(Date.now() + days * 864e5).toISOString().slice(0, 10) : "";
  $$("[data-days]", button.parentElement).forEach((b) => b.setAttribute("aria-pressed", String(b === button)));
  field.dispatchEvent(new Event("change", { bubbles: true }));
}
function choose(select) { // the fields of the chosen kind show, the others neither show nor send
  $$("[data-of]", select.form).forEach((part) => {
    part.hidden = part.dataset.of !== select.value;
    part.disabled = part.hidden;
  });
}
document.addEventListener("click", (event) => {
  const on = (selector) => event.target.closest(selector);
  if (on("[data-copy]")) copy(on("[data-copy]"));
  else if (on("[role=tab]")) selectTab(on("[role=tab]"));
  else if (on("[data-open]")) openDialog(on("[data-open]").dataset.open);
  else if (on("[data-close]")) on("dialog").close();
  else if (on("[data-theme]")) setTheme(on("[data-theme]").dataset.theme);
  else if (on("[data-keys-toggle]")) setKeys(document.body.dataset.keys === "off");
  else if (on("[data-days]")) setExpiry(on("[data-days]"));
});
document.addEventListener("input", ({ target }) => { // type the name to confirm; tick "stored it" to leave
  if (target.dataset.match) $(target.dataset.unlock).setAttribute("aria-disabled", String(target.value !== target.dataset.match));
  if (target.matches("[data-stored]")) $(target.dataset.stored).setAttribute("aria-disabled", String(!target.checked));
});
document.addEventListener("change", ({ target }) => { if (target.matches("[data-choose]")) choose(target); });
document.addEventListener("click", (event) => { if (event.target.closest("[aria-disabled=true]")) event.preventDefault(); }, true);

// ---- keyboard: single keys only outside fields, and only when the user has them on (WCAG 2.1.4)
let pending = "";
document.addEventListener("keydown", (event) => {
  const tabs = event.target.closest?.("[role=tablist]");
  if (tabs && ["ArrowLeft", "ArrowRight"].includes(event.key)) {
    const all = $$("[role=tab]", tabs), step = event.key === "ArrowRight" ? 1 : -1;
    return selectTab(all[(all.indexOf(event.target) + step + all.length) % all.length]);
  }
  if (event.target.closest?.("#palette")) return movePalette(event);
  if ((event.metaKey || event.ctrlKey) && event.key === "k") { event.preventDefault(); return openDialog("palette"); }
  if (event.target.matches("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey || document.body.dataset.keys === "off") return;
  if (pending === "g") $(`[data-go="${CSS.escape(event.key)}"]`)?.click();
  else if (event.key === "/") { event.preventDefault(); ($("[data-filter]") || $("#find"))?.focus(); }
  else if (event.key === "?") openDialog("shortcuts");
  else if (event.key === "c") $("[data-create]")?.click();
  else if (event.key === "j" || event.key === "k") moveRow(event.key === "j" ? 1 : -1);
  pending = event.key === "g" && pending !== "g" ? "g" : "";
});
function moveRow(step) {
  const links = $$("tbody a.cell");
  links[Math.max(0, Math.min(links.length - 1, links.indexOf(document.activeElement) + step))]?.focus();
}
function movePalette(event) {
  const options = $$("#palette [role=option]"), field = $("#palette input");
  let at = options.findIndex((o) => o.getAttribute("aria-selected") === "true");
  if (event.key === "Enter") { event.preventDefault(); options[Math.max(at, 0)]?.click(); return; }
  if (!["ArrowDown", "ArrowUp"].includes(event.key) || !options.length) return;
  event.preventDefault();
  at = (at + (event.key === "ArrowDown" ? 1 : -1) + options.length) % options.length;
  options.forEach((o, i) => o.setAttribute("aria-selected", String(i === at)));
  field.setAttribute("aria-activedescendant", options[at].id);
  options[at].scrollIntoView({ block: "nearest" });
}

// ---- a secret never outlives its page, not even in the back/forward cache
addEventListener("pagehide", () => $$("[data-secret]").forEach((el) => el.remove()));

// ---- htmx: live parts swap in place; what a person opened stays open, a refused form names its fields
const opened = new Set();
document.addEventListener("htmx:beforeSwap", ({ detail }) => {
  $$("details[id]", detail.target).forEach((d) => (d.open ? opened.add(d.id) : opened.delete(d.id)));
});
document.addEventListener("htmx:afterSwap", ({ detail }) => {
  $$("details[id]", detail.target).forEach((d) => { d.open = opened.has(d.id); });
  drawCharts(document);
  nameErrors();
  const found = document.getElementById(detail.target?.id ?? "")?.dataset.found; // of a list that was filtered
  if (found) announce(found);
});
document.addEventListener("htmx:sendError", () => announce("Conduit cannot be reached; the figures shown are from before"));
function nameErrors() {
  $$("[data-marked]").forEach((field) => { field.removeAttribute("aria-invalid"); delete field.dataset.marked; });
  $$("#errors a").forEach((link) => {
    const field = document.querySelector(link.getAttribute("href"));
    if (field) { field.setAttribute("aria-invalid", "true"); field.dataset.marked = ""; }
  });
  $("#errors[role=alert]")?.focus();
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawCharts());
$$("select[data-choose]").forEach(choose);
drawCharts();
nameErrors();
