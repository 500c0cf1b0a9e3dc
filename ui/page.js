// What the page does besides Gradio: the title tells how far a job is, and the keyboard.
() => {
  const title = document.title;
  const visible = (selector) => [...document.querySelectorAll(selector)].find((element) => element.offsetParent);

  setInterval(() => {
    const bar = visible("#stage .bar");
    const told = bar ? `${bar.getAttribute("aria-valuenow")}% · ${title}` : title;
    if (document.title !== told) document.title = told;
  }, 500);

  // (word:1.1) around the selection or the word at the cursor, by Ctrl+Up and Ctrl+Down as in A1111
  const weigh = (field, step) => {
    let { selectionStart: start, selectionEnd: end, value } = field;
    if (start === end) {
      const around = /[^\s,()[\]:<>]/;
      while (start > 0 && around.test(value[start - 1])) start--;
      while (end < value.length && around.test(value[end])) end++;
    }
    if (start === end) return;
    let inner = value.slice(start, end);
    let weight = 1;
    const after = value.slice(end).match(/^:(-?[\d.]+)\)/);
    if (value[start - 1] === "(" && after) {
      weight = parseFloat(after[1]);
      start -= 1;
      end += after[0].length;
    }
    weight = Math.round((weight + step) * 100) / 100;
    const text = weight === 1 ? inner : `(${inner}:${weight})`;
    field.setRangeText(text, start, end, "end");
    const from = weight === 1 ? start : start + 1;
    field.setSelectionRange(from, from + inner.length);
    field.dispatchEvent(new Event("input", { bubbles: true }));
  };

  document.addEventListener("keydown", (event) => {
    const field = event.target.closest("#prompt textarea, #negative-prompt textarea");
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      visible("button[id^=generate-]:not([disabled])")?.click();
    } else if (event.key === "Escape") {
      visible("#interrupt:not([disabled])")?.click();
    } else if (field && (event.ctrlKey || event.metaKey) && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
      event.preventDefault();
      weigh(field, event.key === "ArrowUp" ? 0.1 : -0.1);
    }
  });
};
