// Offers to apply generation data that is pasted into the prompt.

const DATA = /(^|\n)\s*Steps: \d+, .*\b(Sampler|Seed|CFG scale): /;

const offer = (shown) => document.querySelector("#offer")?.classList.toggle("shown", shown);

export function offerToRead() {
  document.addEventListener("paste", (event) => {
    if (event.target.closest?.("#prompt textarea")) offer(DATA.test(event.clipboardData?.getData("text/plain") ?? ""));
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest?.("#offer button, #read-data")) offer(false);
  });
  document.addEventListener("input", (event) => {
    if (event.target.matches?.("#prompt textarea") && !event.target.value) offer(false);
  });
}
