
// A click on a column's head sorts by it; without scripts the table stays in its order.
(function () {
  "use strict";
  function value(row, place) {
    return row.cells[place].textContent.trim();
  }
  function number(text) {
    var found = /^[-+]?\d+(\.\d+)?(e[-+]?\d+)?/i.exec(text);
    return found ? parseFloat(found[0]) : NaN;
  }
  function sort(table, place, head) {
    var body = table.tBodies[0];
    var rows = Array.prototype.slice.call(body.rows);
    var down = head.getAttribute("aria-sort") === "ascending";
    rows.sort(function (one, other) {
      var a = value(one, place), b = value(other, place);
      // What was not measured stands last either way.
      if (a === "-" || b === "-") { return (a === "-") - (b === "-"); }
      var x = number(a), y = number(b);
      var order = isNaN(x) || isNaN(y) ? a.localeCompare(b) : x - y;
      return down ? -order : order;
    });
    rows.forEach(function (row) { body.appendChild(row); });
    Array.prototype.forEach.call(table.tHead.rows[0].cells, function (cell) { cell.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
  }
  Array.prototype.forEach.call(document.querySelectorAll("table"), function (table) {
    if (table.tBodies[0].rows.length < 3) { return; }
    Array.prototype.forEach.call(table.tHead.rows[0].cells, function (head, place) {
      var button = document.createElement("button");
      while (head.firstChild) { button.appendChild(head.firstChild); }
      button.title = "sort by this column";
      button.addEventListener("click", function () { sort(table, place, head); });
      head.appendChild(button);
    });
  });
})();
