
"use strict";
(() => {
  const collator = new Intl.Collator("en", { numeric: true });

  // Sorting: within each part of a table, so that the references stay on top; what has no number comes last.
  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.v === undefined ? null : Number(cell.dataset.v || cell.textContent);
  };
  const byNumber = (column, sign) => (a, b) => {
    const [x, y] = [key(a, column), key(b, column)];
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * (x - y);
  };
  const byText = (column, sign) => (a, b) =>
    sign * collator.compare(a.cells[column].textContent, b.cells[column].textContent);

  const sort = (table, header) => {
    const column = header.cellIndex;
    const numeric = [...table.tBodies].some((body) => [...body.rows].some((row) => key(row, column) !== null));
    const [first, second] = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
    const order = header.getAttribute("aria-sort") === first ? second : first;
    const compare = (numeric ? byNumber : byText)(column, order === "ascending" ? 1 : -1);
    for (const body of table.tBodies) body.append(...[...body.rows].sort(compare));
    for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", order);
  };

  for (const header of document.querySelectorAll(".board thead th")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sort(header.closest("table"), header));
    header.append(button);
  }

  // Filtering: a line stays when it holds all the words.
  const filter = document.getElementById("filter");
  const count = document.getElementById("count");
  const lines = [...document.querySelectorAll(".board tbody tr")];
  const pages = [...document.querySelectorAll(".row-page")];
  const texts = new Map();
  const textOf = (element) => {
    if (!texts.has(element)) texts.set(element, element.textContent.toLowerCase());
    return texts.get(element);
  };
  const contents = new Map(
    [...document.querySelectorAll("nav li")].map((item) => [item.firstElementChild.hash.slice(1), item]),
  );

  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const element of [...lines, ...pages]) {
      const text = words.length ? textOf(element) : "";
      element.hidden = !words.every((word) => text.includes(word));
    }
    for (const section of document.querySelectorAll("main > section")) {
      section.hidden = words.length > 0 && !section.querySelector(".board tbody tr:not([hidden]), .row-page:not([hidden])");
      const item = contents.get(section.id);
      if (item) item.hidden = section.hidden;
    }
    const shown = lines.filter((line) => !line.hidden).length;
    count.textContent = words.length ? `${shown} of ${lines.length} lines` : `${lines.length} lines`;
  };
  filter.addEventListener("input", apply);
  filter.form.addEventListener("submit", (event) => event.preventDefault());
  filter.form.hidden = false;
  apply();

  // A link leads to what is folded or filtered away too.
  const reveal = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    if (target.closest("[hidden]")) {
      filter.value = "";
      apply();
    }
    for (let fold = target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  if (location.hash) reveal();

  // On paper everything is open.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const fold of folded) fold.open = true;
  });
  addEventListener("afterprint", () => {
    for (const fold of folded) fold.open = false;
  });
})();
