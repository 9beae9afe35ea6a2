// Folds groups of targets, sorts and searches them. Without it, every row is shown.
(function () {
  "use strict";
  var table = document.getElementById("target-table");
  var search = document.getElementById("search");
  var found = document.getElementById("found");
  var bodies = Array.prototype.slice.call(table.tBodies);
  var rows = [];
  bodies.forEach(function (body) {
    Array.prototype.forEach.call(body.rows, function (row) {
      if (row.className !== "head") { rows.push({ row: row, body: body, place: rows.length }); }
    });
    if (body.className === "group") { fold(body); }
  });
  var flat = document.createElement("tbody");
  var order = null;

  function fold(body) {
    var cell = body.rows[0].cells[0];
    var button = document.createElement("button");
    button.type = "button";
    while (cell.firstChild) { button.appendChild(cell.firstChild); }
    cell.appendChild(button);
    button.addEventListener("click", function () { open(body, body.classList.contains("folded")); });
    body.button = button;
    open(body, false);
  }

  function open(body, is) {
    body.classList.toggle("folded", !is);
    body.button.setAttribute("aria-expanded", String(is));
  }

  function number(cell) {
    var text = cell.textContent;
    var digits = /-?[\d.]+/.exec(text);
    return text.trim() === "exact" ? Infinity : digits ? parseFloat(digits[0]) : NaN;
  }

  function sort(head) {
    var column = head.cellIndex;
    var numeric = head.hasAttribute("data-number");
    var before = head.getAttribute("aria-sort");
    Array.prototype.forEach.call(table.tHead.rows[0].cells, function (one) {
      one.removeAttribute("aria-sort");
    });
    order = before === "descending" ? null : before === "ascending" ? -1 : 1;
    var sorted = rows.slice();
    if (order !== null) {
      head.setAttribute("aria-sort", order > 0 ? "ascending" : "descending");
      sorted.sort(function (a, b) {
        var x = a.row.cells[column], y = b.row.cells[column];
        if (!numeric) { return order * x.textContent.localeCompare(y.textContent); }
        x = number(x); y = number(y);
        if (isNaN(x) || isNaN(y)) { return (isNaN(x) ? 1 : 0) - (isNaN(y) ? 1 : 0); }
        return x === y ? a.place - b.place : order * (x < y ? -1 : 1);
      });
    }
    place(sorted);
  }

  function place(sorted) {
    if (order !== null) {
      bodies.forEach(function (body) { if (body.parentNode) { table.removeChild(body); } });
      sorted.forEach(function (one) { flat.appendChild(one.row); });
      table.appendChild(flat);
      return;
    }
    if (flat.parentNode) { table.removeChild(flat); }
    rows.forEach(function (one) { one.body.appendChild(one.row); });
    bodies.forEach(function (body) { table.appendChild(body); });
  }

  Array.prototype.forEach.call(table.tHead.rows[0].cells, function (head) {
    if (head.textContent === "Weights") { return; }
    var button = document.createElement("button");
    button.type = "button";
    while (head.firstChild) { button.appendChild(head.firstChild); }
    head.appendChild(button);
    button.addEventListener("click", function () { sort(head); });
  });

  search.addEventListener("input", function () {
    var words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    var count = 0;
    rows.forEach(function (one) {
      var text = one.row.textContent.toLowerCase();
      var is = words.every(function (word) { return text.indexOf(word) >= 0; });
      one.row.hidden = !is;
      count += is ? 1 : 0;
    });
    table.classList.toggle("searched", words.length > 0);
    found.textContent = words.length ? count + " of " + rows.length : "";
  });
})();
