// The leaderboard: columns sort within their block, chips filter, a row opens.
{
  const value = (row, column) => {
    const text = row.cells[column].dataset.sort;
    return text === "" ? null : isNaN(Number(text)) ? text : Number(text);
  };

  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null);  // what has no value comes last either way
    return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }));
  };

  const sort = (table, header) => {
    const column = header.cellIndex;
    const better = header.querySelector(".sort").dataset.better;
    const first = better === "higher" ? "descending" : "ascending";
    const before = header.getAttribute("aria-sort");
    const now = before === null ? first : before === "ascending" ? "descending" : "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", now);
    for (const body of table.tBodies) {
      if (body.classList.contains("pinned")) continue;
      const rows = [...body.querySelectorAll("tr.row")].map((row) => [row, row.nextElementSibling]);
      rows.sort(([a], [b]) => compare(value(a, column), value(b, column), now === "ascending" ? 1 : -1));
      for (const pair of rows) body.append(...pair);
    }
  };

  const filter = (board) => {
    const wanted = {};
    for (const field of board.querySelectorAll("[data-filter]")) {
      wanted[field.dataset.filter] = new Set([...field.querySelectorAll("input:checked")].map((box) => box.value));
    }
    let hidden = 0;
    for (const row of board.querySelectorAll("tr.row")) {
      const shown = Object.entries(wanted).every(([name, values]) => row.dataset[name] === "" || values.has(row.dataset[name]));
      row.hidden = !shown;
      hidden += !shown;
      if (!shown) open(row, false);
    }
    for (const title of board.querySelectorAll("tr.title")) {
      title.hidden = [...title.parentElement.querySelectorAll("tr.row")].every((row) => row.hidden);
    }
    const told = board.querySelector(".hidden-rows");
    if (told) told.textContent = hidden ? `${hidden} ${hidden === 1 ? "row is" : "rows are"} hidden` : "";
  };

  const open = (row, opened) => {
    row.querySelector(".more").setAttribute("aria-expanded", String(opened));
    row.nextElementSibling.hidden = !opened;
  };

  for (const board of document.querySelectorAll("[data-board]")) {
    const table = board.querySelector("table");
    table.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button?.classList.contains("sort")) sort(table, button.closest("th"));
      else if (button?.classList.contains("more")) open(button.closest("tr"), button.getAttribute("aria-expanded") !== "true");
    });
    board.querySelector(".filters")?.addEventListener("change", () => filter(board));
  }
}
