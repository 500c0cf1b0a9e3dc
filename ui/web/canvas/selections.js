// Asks the server to select something in a canvas's picture: one question at a time; the picture is uploaded once.

const SELECTIONS = new URL("canvas-selections", document.baseURI);
const GONE = 410; // the server no longer has the picture
const AREA = "Selected-Area";

const sentence = async (answer) => (await answer.json().catch(() => ({}))).detail ?? `${answer.status} ${answer.statusText}`;

export class Selections {
  constructor(transport) {
    Object.assign(this, { transport, busy: false, next: null });
  }

  // {area, numbers} of a mask, or {path} of an edge; null if a newer question came before this was sent, or about another
  // picture. Throws an Error with a sentence.
  ask(question) {
    this.next?.done(null);
    return new Promise((done, fail) => {
      this.next = { question, picture: this.transport.picture, done, fail };
      this.send();
    });
  }

  async send() {
    if (this.busy || !this.next) return;
    const { question, picture, done, fail } = this.next;
    this.next = null;
    this.busy = true;
    try {
      const found = picture && picture === this.transport.picture ? await this.answer(question) : null;
      done(picture === this.transport.picture ? found : null);
    } catch (error) {
      fail(error);
    } finally {
      this.busy = false;
      this.send();
    }
  }

  async answer(question) {
    let answer = await this.post(question, await this.transport.pictureDraft());
    if (answer.status === GONE) answer = await this.post(question, await this.transport.pictureDraft());
    if (!answer.ok) throw new Error(await sentence(answer));
    if (!answer.headers.has(AREA)) return answer.json();
    const [x1, y1, x2, y2] = answer.headers.get(AREA).split(" ").map(Number);
    return { area: { x1, y1, x2, y2 }, numbers: new Uint8Array(await answer.arrayBuffer()) };
  }

  post(question, draft) {
    return fetch(SELECTIONS, { method: "POST", body: JSON.stringify({ ...question, draft }) });
  }

  // The names of the models that can answer clicks.
  async models() {
    const answer = await fetch(SELECTIONS);
    return answer.ok ? answer.json() : [];
  }
}
