// Pages of a list by cursor.
import { button, el } from "./dom.js";

export function pager(context) {
  let cursors = [null];
  const turn = (next) => async () => {
    cursors = next;
    await context.refresh();
  };
  return {
    get cursor() {
      return cursors.at(-1);
    },
    reset() {
      cursors = [null];
    },
    links: (more) =>
      (cursors.length > 1 || more) &&
      el(
        "p",
        { class: "row pages" },
        button("← Newer", turn(cursors.slice(0, -1)), { "data-key": "newer", hidden: cursors.length === 1 }),
        button("Older →", turn([...cursors, more]), { "data-key": "older", hidden: !more }),
      ),
  };
}
