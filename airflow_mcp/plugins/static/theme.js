// Runs before the style sheet, so that the page never flashes in the wrong colours.
(() => {
  const root = document.documentElement;
  let outer = null;
  try {
    if (window.parent !== window) outer = window.parent.document.documentElement;
  } catch { /* another origin frames the page: the system's theme is used */ }
  const apply = () => {
    let theme = outer && (outer.classList.contains("dark") ? "dark" : outer.classList.contains("light") ? "light" : "");
    if (!theme) {
      try { theme = localStorage.getItem("theme"); } catch { theme = ""; }
    }
    if (theme === "dark" || theme === "light") root.dataset.theme = theme;
    else delete root.dataset.theme;
  };
  apply();
  if (outer) new MutationObserver(apply).observe(outer, { attributes: true, attributeFilter: ["class"] });
})();
