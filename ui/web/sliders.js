// Numbers stay as they are typed: Gradio cuts them to a slider's range when its field is left, where the server takes more
// and says what is valid.

export function leaveNumbers() {
  document.addEventListener("blur", (event) => {
    if (event.target.matches?.("input[data-testid='number-input']") && event.target.value) event.stopPropagation();
  }, true);
}
