"use strict";
// The table of flagged captions: sort, search, filter, rows drawn only where they are looked at. Text never becomes markup.
(async () => {
  const $ = (id) => document.getElementById(id);
  const grid = $("grid");
  if (!grid) return;

  const bytes = Uint8Array.from(atob($("payload").textContent), (c) => c.charCodeAt(0));
  const inflated = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const { score, scores, rows, files, sources, lead } = JSON.parse(await new Response(inflated).text());
  const total = rows.rank.length;
  const members = new Map(); // of each finding, by its first
  lead.forEach((first, i) => members.has(first) ? members.get(first).push(i) : members.set(first, [i]));
  const findings = [...members.keys()];
  const grouped = findings.length < total;
  // what a finding shows of its captions together
  const n_rows = rows.n_rows.map((_, i) => (members.get(i) || []).reduce((sum, each) => sum + rows.n_rows[each], 0));
  const status = rows.finding?.map((_, i) => {
    const kinds = (members.get(i) || []).map((each) => rows.finding[each]);
    return ["new", "known", "allowed"].find((kind) => kinds.includes(kind)) ?? null;
  });
  const together = { ...rows, n_rows, finding: status };
  const looks = new Map(); // what closer looks found, as the plain table has it
  for (const tr of document.querySelectorAll(".static tr[data-prompt]"))
    if (tr.querySelector(".look")) looks.set(tr.dataset.prompt, [...tr.querySelectorAll(".look")]);
  const headings = [...grid.querySelectorAll("th button")];
  const keys = headings.map((button) => button.dataset.key);
  const scroller = $("scroller"), body = $("body"), search = $("search");
  const SPARE = 8; // rows drawn above and below what is seen

  let view = findings; // indices of the first prompts of the shown findings, in the shown order
  let sortKey = "rank", descending = false;
  let active = 0, open = -1; // places in `view`
  let rowHeight = 36, detailHeight = 0;

  const described = (i) => {
    const named = [...new Set(sources[i].map(([file]) => file))].map((file) => files[file]);
    return [rows.text[i], rows.prompt_id[i], ...named].join("\n").toLowerCase();
  };
  const haystack = new Map(findings.map((first) => [first, members.get(first).map(described).join("\n")]));
  const collator = new Intl.Collator("en", { numeric: true });

  const whole = (value) => value.toLocaleString("en", { maximumFractionDigits: 0 });
  const real = (value, digits) => {
    if (value !== 0 && Math.abs(value) < 1e-3) return value.toExponential(1);
    return Math.abs(value) < 1e3 ? value.toPrecision(digits) : whole(value);
  };
  const format = (key, i, all = false) => {
    const value = (all ? together : rows)[key][i];
    if (value === null) return "";
    if (scores.includes(key)) return real(value, 4);
    if (key.endsWith("_value")) return real(value, 2);
    return typeof value === "number" ? whole(value) : value;
  };
  const make = (tag, className, ...children) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children);
    return element;
  };
  // a cell that spans more than the columns on show would make columns of its own
  const spanning = (cell) => {
    cell.colSpan = [...grid.tHead.rows[0].cells].filter((th) => th.offsetWidth).length;
    return cell;
  };
  const isolated = (text, className) => {
    const element = make("bdi", className, text);
    element.dir = "auto";
    element.lang = ""; // unknown
    return element;
  };

  function choose() {
    const wanted = search.value.trim().toLowerCase();
    const finding = document.querySelector("#finding input:checked")?.value || "";
    const keep = (i) => (!finding || members.get(i).some((each) => rows.finding[each] === finding))
      && (!wanted || haystack.get(i).includes(wanted));
    const column = together[sortKey], sign = descending ? -1 : 1;
    const compare = sortKey === "text" || sortKey === "finding" ? collator.compare : (a, b) => a - b;
    view = findings.filter(keep).sort((i, j) => {
      const a = column[i], b = column[j];
      if (a === null || b === null) return (a === null) - (b === null) || i - j; // unknown last, either way
      return sign * compare(a, b) || i - j;
    });
    active = 0;
    open = -1;
    scroller.scrollTop = 0;
    grid.setAttribute("aria-rowcount", view.length + 1);
    const kind = grouped ? "findings" : "captions", all = whole(findings.length);
    $("count").textContent = (view.length === findings.length ? all : `${whole(view.length)} of ${all}`) + ` ${kind}`
      + (grouped && view.length === findings.length ? `, ${whole(total)} captions` : "");
    draw();
  }

  function row(place) {
    const i = view[place], element = make("tr", "row");
    element.id = `row-${place}`;
    element.dataset.place = place;
    element.setAttribute("aria-rowindex", place + 2);
    element.setAttribute("aria-selected", place === active);
    element.setAttribute("aria-expanded", place === open);
    for (const key of keys) {
      if (key === "text") element.append(make("td", "caption", isolated(rows.text[i]), ...more(i)));
      else if (key === "finding") element.append(make("td", `finding ${format(key, i, true)}`, format(key, i, true)));
      else element.append(make("td", `number ${key}`, format(key, i, true)));
    }
    element.append(make("td", "id", copyButton(i, rows.prompt_id[i].slice(0, 8))));
    return element;
  }

  function more(i) {
    const others = members.get(i).length - 1;
    return others ? [make("small", "", `+ ${whole(others)} ${others > 1 ? "captions" : "caption"}`)] : [];
  }

  function copyButton(i, label) {
    const button = make("button", "copy", label);
    button.type = "button";
    button.tabIndex = -1;
    button.title = "Copy the prompt id";
    button.dataset.prompt = i;
    return button;
  }

  function details(place) {
    const i = view[place], list = make("dl");
    const add = (name, value, wide) => {
      const pair = make("div", wide ? "wide" : "", make("dt", "", name), make("dd", "", value));
      list.append(pair);
    };
    for (const name of scores) add(name === score ? `${name} (decides)` : name, format(name, i));
    for (const [key, name] of [["p_value", "p-value"], ["q_value", "q-value"], ["finding", "status"]])
      if (rows[key]) add(name, format(key, i));
    if (rows.truncated?.[i]) add("length", "longer than the text encoder reads: its end had no say", true);
    add("prompt id", make("div", "", make("code", "", rows.prompt_id[i]), " ", copyButton(i, "copy")), true);
    add(`dataset rows: ${whole(rows.n_rows[i])}`, sourceList(i), true);
    const cell = make("td", "", isolated(rows.text[i], "full"), ...(looks.get(rows.prompt_id[i]) || []).map(copied));
    const others = members.get(i).slice(1);
    if (others.length) cell.append(make("p", "keys", "seem to lead to the same image:"), make("ul", "others", ...others.map(other)));
    cell.append(list);
    return make("tr", "details", spanning(cell));
  }

  const copied = (node) => node.cloneNode(true);

  function other(i) {
    const facts = [format(score, i), ...(rows.finding ? [format("finding", i)] : []), `${format("n_rows", i)} rows`];
    return make("li", "", isolated(rows.text[i]), make("small", "", facts.join(", ")), " ", copyButton(i, rows.prompt_id[i].slice(0, 8)));
  }

  function cards() {
    const seen = document.querySelector(".seen"), pictured = [...looks].filter(([, found]) => found.some((look) => look.querySelector("img")));
    if (!pictured.length) return;
    const box = make("div", "cards");
    for (const [id, found] of pictured) {
      const i = rows.prompt_id.indexOf(id);
      if (i < 0) continue;
      const title = make("h3", "", `${whole(rows.rank[i])}. `, isolated(rows.text[i]), ...more(i));
      box.append(make("article", "card", title, make("small", "", `score ${format(score, i)}`), ...found.map(copied)));
    }
    seen.append(box);
    seen.hidden = false;
  }

  function sourceList(i) {
    const byFile = new Map();
    for (const [file, number] of sources[i]) byFile.set(file, [...(byFile.get(file) || []), number]);
    const list = make("div");
    for (const [file, numbers] of byFile)
      list.append(make("div", "", isolated(files[file]), `: ${numbers.length > 1 ? "rows" : "row"} ${numbers.join(", ")}`));
    const more = rows.n_rows[i] - sources[i].length;
    if (more > 0) list.append(make("div", "", `and ${whole(more)} more, in flagged.parquet`));
    return list;
  }

  function pad(height) {
    const cell = spanning(make("td")), element = make("tr", "pad", cell);
    element.setAttribute("aria-hidden", "true");
    cell.style.height = `${height}px`;
    return element;
  }

  const top = (place) => place * rowHeight + (open >= 0 && place > open ? detailHeight : 0);

  function draw() {
    const from = scroller.scrollTop, to = from + scroller.clientHeight;
    const before = (y) => (open >= 0 && y > top(open + 1) ? y - detailHeight : y);
    const first = Math.max(0, Math.floor(before(from) / rowHeight) - SPARE);
    const last = Math.min(view.length, Math.ceil(to / rowHeight) + SPARE);
    const drawn = [pad(top(first))];
    for (let place = first; place < last; place++) {
      drawn.push(row(place));
      if (place === open) drawn.push(details(place));
    }
    drawn.push(pad(top(view.length) - top(last)));
    body.replaceChildren(...drawn);
    if (view.length) grid.setAttribute("aria-activedescendant", `row-${active}`);
    else grid.removeAttribute("aria-activedescendant");
    const opened = body.querySelector(".details");
    if (opened && opened.offsetHeight !== detailHeight) {
      detailHeight = opened.offsetHeight;
      draw();
    }
  }

  function move(place) {
    if (!view.length) return;
    active = Math.max(0, Math.min(view.length - 1, place));
    reveal(top(active), top(active) + rowHeight);
    draw();
  }

  // scroll as little as it takes; the start comes first where not all fits
  function reveal(from, to) {
    const room = scroller.clientHeight - grid.tHead.offsetHeight;
    scroller.scrollTop = Math.min(from, Math.max(scroller.scrollTop, to - room));
  }

  function toggle(place) {
    if (!view.length) return;
    active = place;
    open = open === place ? -1 : place;
    draw();
    reveal(top(place), top(place + 1));
  }

  async function copy(i) {
    const id = rows.prompt_id[i];
    try {
      await navigator.clipboard.writeText(id);
      $("count").textContent = `copied ${id}`;
    } catch {
      $("count").textContent = `not allowed to copy: ${id}`;
    }
  }

  headings.forEach((button) => button.addEventListener("click", () => {
    const key = button.dataset.key;
    const numbers = !["rank", "text", "finding", "p_value", "q_value"].includes(key);
    descending = key === sortKey ? !descending : numbers; // at first, the notable end
    sortKey = key;
    grid.querySelectorAll("th").forEach((th) => th.removeAttribute("aria-sort"));
    button.parentElement.setAttribute("aria-sort", descending ? "descending" : "ascending");
    choose();
  }));
  search.addEventListener("input", choose);
  $("finding")?.addEventListener("change", choose);
  scroller.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  addEventListener("resize", () => measure());
  body.addEventListener("click", (event) => {
    const button = event.target.closest(".copy"), element = event.target.closest(".row");
    if (button) copy(Number(button.dataset.prompt));
    else if (element && getSelection().isCollapsed) toggle(Number(element.dataset.place));
  });
  const moves = {
    ArrowDown: () => move(active + 1), ArrowUp: () => move(active - 1),
    PageDown: () => move(active + 10), PageUp: () => move(active - 10),
    Home: () => move(0), End: () => move(view.length - 1),
    Enter: () => toggle(active), " ": () => toggle(active), c: () => view.length && copy(view[active]),
  };
  grid.addEventListener("keydown", (event) => {
    if (event.target !== grid || event.ctrlKey || event.metaKey || event.altKey || !moves[event.key]) return;
    event.preventDefault();
    moves[event.key]();
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target === search || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    search.focus();
  });

  function measure() {
    const drawn = body.querySelector(".row");
    if (drawn) rowHeight = drawn.getBoundingClientRect().height;
    draw();
  }

  document.documentElement.classList.add("scripted");
  cards();
  choose();
  measure();
})();
