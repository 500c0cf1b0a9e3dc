// Keeps numbers as typed: Gradio clamps them to the slider's range when the field loses focus, but the server accepts more
// and says what is valid.

export function leaveNumbers() {
  document.addEventListener("blur", (event) => {
    if (event.target.matches?.("input[data-testid='number-input']") && event.target.value) event.stopPropagation();
  }, true);
}
