// The titles inside the pictures become tips, which are also shown for the keyboard.
const tip = document.getElementById("tip");
for (const words of document.querySelectorAll("svg title")) {
  const shape = words.parentElement;
  shape.dataset.tip = words.textContent;
  shape.setAttribute("aria-label", words.textContent);
  words.remove();
}
function show(shape, x, y) {
  tip.hidden = !shape;
  if (!shape) return;
  tip.textContent = shape.dataset.tip;
  tip.style.top = Math.min(y + 14, innerHeight - tip.offsetHeight - 4) + "px";
  tip.style.left = Math.max(4, Math.min(x + 12, innerWidth - tip.offsetWidth - 8)) + "px";
}
document.addEventListener("pointermove", (event) => show(event.target.closest("[data-tip]"), event.clientX, event.clientY));
document.addEventListener("focusin", (event) => {
  const shape = event.target.closest("[data-tip]"), place = event.target.getBoundingClientRect();
  show(shape, place.right, place.bottom);
});
document.addEventListener("focusout", () => show(null));
document.addEventListener("keydown", (event) => { if (event.key === "Escape") show(null); });
