// The page's picture inputs, and putting a file into one as if the user had chosen it.

export const INPUTS = "[id$=-picture], [id$=-editor], #upload-mask";

export async function put(file, input) {
  input.querySelector("[aria-label='Remove Image'], [aria-label='Clear canvas']")?.click();
  await new Promise((done) => setTimeout(done, 300));
  const field = input.querySelector("input[type=file]");
  if (!field) return;
  const files = new DataTransfer();
  files.items.add(file);
  field.files = files.files;
  field.dispatchEvent(new Event("change", { bubbles: true }));
}
