// What a reader can move (book/explorers.py drew every frame): which frame stands, which dots are shown, what one says.

for (const root of document.querySelectorAll(".explorer")) {
  const sliders = [...root.querySelectorAll("input[data-key]")];
  const frames = [...root.querySelectorAll(".frame")];

  const show = () => {
    for (const slider of sliders) {
      const words = slider.dataset.texts.split("|")[slider.value];
      slider.setAttribute("aria-valuetext", words);
      slider.nextElementSibling.textContent = words;
    }
    for (const frame of frames) {
      const stands = sliders.every((slider) => frame.dataset[slider.dataset.key] === slider.value);
      frame.classList.toggle("shown", stands);
    }
  };
  for (const slider of sliders) {
    slider.addEventListener("input", show);
  }

  for (const box of root.querySelectorAll("input[data-toggle]")) {
    box.addEventListener("change", () => root.classList.toggle(box.dataset.toggle, !box.checked));
  }

  const filters = [...root.querySelectorAll("select[data-filter]")];
  const items = [...root.querySelectorAll(".item")];
  for (const filter of filters) {
    filter.addEventListener("change", () => {
      for (const item of items) {
        const fits = filters.every((f) => !f.value || item.dataset[f.dataset.filter] === f.value);
        item.classList.toggle("left-out", !fits);
      }
    });
  }
  for (const item of items) {
    for (const event of ["pointerenter", "focus"]) {
      item.addEventListener(event, () => {
        root.querySelector(".told").textContent = item.dataset.tell;
      });
    }
  }

  if (sliders.length) {
    show(); // a browser may have kept another position from an earlier visit
  }
  root.classList.add("live");
}
