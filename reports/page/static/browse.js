// The utterance browser: every utterance of every row; only the lines in sight are elements.
{
  const box = document.getElementById("browse");
  const LINE = 52, BEYOND = 8;
  const at = (name) => document.getElementById(name);
  const state = { data: null, columns: [], order: [], sort: null, down: false };

  const start = () => {
    if (state.data) return;
    const data = (state.data = page.data("browser"));
    const listen = new Set((page.data("listen") || []).flatMap((table) => table.utterances.map((u) => `${table.title}\n${u.id}`)));
    const places = new Map((page.data("listen") || []).map((table, i) => [table.title, i]));
    data.lower = data.texts.map((text) => text.toLowerCase());
    data.link = (row, i) => (listen.has(`${data.tables[row.table]}\n${data.texts[row.id[i]]}`) ? `#listen/${places.get(data.tables[row.table])}/${encodeURIComponent(data.texts[row.id[i]])}` : null);
    data.first = [];
    data.count = 0;
    for (const row of data.rows) { data.first.push(data.count); data.count += row.id.length; }
    data.row = new Uint16Array(data.count);
    data.rows.forEach((row, r) => data.row.fill(r, data.first[r], data.first[r] + row.id.length));
    const text = (name, title, width) => ({ title, width, text: true, get: (r, i) => data.rows[r][name][i], show: (index) => (index < 0 ? "" : data.texts[index]) });
    const several = data.tables.length > 1;
    state.columns = [
      { title: "Row", width: "w-name", get: (r) => r, show: (r) => data.rows[r].name + (several ? ` · ${data.tables[data.rows[r].table].split(" on ")[0]}` : "") },
      { ...text("id", "Utterance", "w-id"), linked: true },
      text("text", "Text", "w-text"), text("said", "Heard", "w-text"),
      ...data.figures.map(([, title, scale, decimals], f) => ({ title, width: "w-figure", number: true, get: (r, i) => data.rows[r].figures[f][i], show: (value) => (value === null ? "–" : (value * scale).toFixed(decimals)) })),
      { title: "Seconds", width: "w-figure", number: true, get: (r, i) => data.rows[r].s[i], show: (value) => (value === null ? "–" : value.toFixed(2)) },
      text("why", "Note", "w-why"),
    ];
    head();
    at("browse-row").append(...data.rows.map((row, r) => page.make("option", { value: r, textContent: row.name + (several ? ` · ${data.tables[row.table]}` : "") })));
    choose();
  };

  const head = () => {
    const line = page.make("div", { class: "line", role: "row" });
    state.columns.forEach((column, c) => {
      const button = page.make("button", { type: "button", textContent: column.title });
      const cell = page.make("div", { class: `cell ${column.width}${column.number ? " number" : ""}`, role: "columnheader" }, button);
      button.addEventListener("click", () => {
        state.down = state.sort === c ? !state.down : Boolean(column.number);
        state.sort = c;
        for (const other of line.children) other.removeAttribute("aria-sort");
        cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
        sort();
        box.scrollTop = 0;
        draw(true);
      });
      line.append(cell);
    });
    box.querySelector(".head").append(line);
  };

  // Which utterances match: texts are searched once each, then every line by the indices of its texts.
  const choose = () => {
    const { data } = state;
    const wanted = at("search").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const only = at("browse-row").value;
    const hits = wanted.map((word) => Uint8Array.from(data.lower, (text) => text.includes(word)));
    const found = [];
    data.rows.forEach((row, r) => {
      if (only !== "" && Number(only) !== r) return;
      const named = wanted.map((word) => row.name.toLowerCase().includes(word));
      for (let i = 0; i < row.id.length; i++) {
        const here = hits.every((hit, w) => named[w] || hit[row.id[i]] || hit[row.text[i]] || hit[row.said[i]] || hit[row.why[i]] || hit[row.speaker[i]]);
        if (here) found.push(data.first[r] + i);
      }
    });
    state.order = found;
    sort();
    at("browse-count").textContent = found.length === data.count ? `${found.length} lines` : `${found.length} of ${data.count} lines`;
    box.scrollTop = 0;
    draw(true);
  };

  const rank = () => {
    const { data } = state;
    if (data.rank) return data.rank;
    const order = data.texts.map((_, i) => i).sort(((collator) => (a, b) => collator.compare(data.texts[a], data.texts[b]))(new Intl.Collator(undefined, { numeric: true })));
    data.rank = new Int32Array(order.length);
    order.forEach((text, place) => { data.rank[text] = place; });
    return data.rank;
  };

  const sort = () => {
    const { data, columns } = state;
    if (state.sort === null) return;
    const column = columns[state.sort];
    const value = (place) => {
      const r = data.row[place], found = column.get(r, place - data.first[r]);
      return column.text ? (found < 0 ? null : rank()[found]) : found;
    };
    const keys = new Map(state.order.map((place) => [place, value(place)]));
    const sign = state.down ? -1 : 1;
    state.order.sort((a, b) => {
      const x = keys.get(a), y = keys.get(b);
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return sign * (x - y) || a - b;
    });
  };

  let drawn = "";
  const draw = (anew) => {
    const body = box.querySelector(".body");
    const first = Math.max(0, Math.floor(box.scrollTop / LINE) - BEYOND);
    const last = Math.min(state.order.length, Math.ceil((box.scrollTop + box.clientHeight) / LINE) + BEYOND);
    if (!anew && drawn === `${first}-${last}`) return;
    drawn = `${first}-${last}`;
    body.style.height = `${state.order.length * LINE}px`;
    body.replaceChildren(...state.order.slice(first, last).map((place, k) => line(place, first + k)));
  };

  const line = (place, number) => {
    const { data } = state;
    const r = data.row[place], i = place - data.first[r];
    const made = page.make("div", { class: "line", role: "row", "aria-rowindex": String(number + 2) });
    made.style.transform = `translateY(${number * LINE}px)`;
    for (const column of state.columns) {
      const shown = column.show(column.get(r, i));
      const link = column.linked && data.link(data.rows[r], i);
      const inside = link ? [page.make("a", { href: link, title: "Listen", textContent: `♪ ${shown}` })] : [shown];
      made.append(page.make("div", { class: `cell ${column.width}${column.number ? " number" : ""}`, role: "cell", dir: "auto", title: column.text ? shown : "" }, ...inside));
    }
    return made;
  };

  if (box) {
    page.opened.utterances = start;
    box.addEventListener("scroll", () => requestAnimationFrame(() => draw(false)));
    addEventListener("resize", () => state.data && draw(false));
    let waiting = 0;
    at("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(choose, 120); });
    at("browse-row").addEventListener("change", choose);
  }
}
