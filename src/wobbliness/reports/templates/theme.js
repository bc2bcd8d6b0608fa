(() => {
  const button = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.style.colorScheme || (dark.matches ? "dark" : "light")) === "dark";
  const name = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  button.hidden = false;
  button.setAttribute("aria-label", "Switch between light and dark");
  button.addEventListener("click", () => { document.documentElement.style.colorScheme = isDark() ? "light" : "dark"; name(); });
  dark.addEventListener("change", name);
  name();
  const open = (hash) => {
    const target = hash && document.getElementById(hash.slice(1));
    if (target && target.tagName === "DETAILS") target.open = true;
  };
  addEventListener("click", (event) => { // before the jump, and for a link whose address is here already
    const link = event.target.closest('a[href^="#"]');
    if (link) open(link.hash);
  });
  addEventListener("hashchange", () => open(location.hash));
  open(location.hash);
})();
