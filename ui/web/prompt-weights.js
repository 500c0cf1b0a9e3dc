// Ctrl+Up and Ctrl+Down put (word:1.1) around the selection or the word at the cursor, as in A1111.

const STEP = 0.1;
const WORD = /[^\s,()[\]:<>]/;

function weigh(field, step) {
  let { selectionStart: start, selectionEnd: end, value } = field;
  if (start === end) {
    while (start > 0 && WORD.test(value[start - 1])) start--;
    while (end < value.length && WORD.test(value[end])) end++;
  }
  if (start === end) return;
  const inner = value.slice(start, end);
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
}

export function weighByKeys() {
  document.addEventListener("keydown", (event) => {
    const step = { ArrowUp: STEP, ArrowDown: -STEP }[event.key];
    const field = event.target.closest?.("#prompt textarea, #negative-prompt textarea");
    if (!field || !step || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    weigh(field, step);
  });
}
