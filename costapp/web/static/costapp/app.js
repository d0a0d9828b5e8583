// Small behaviours of the frame: theme, menus, copying, and local times. Pages work without it.
(() => {
  "use strict";
  const root = document.documentElement;
  const YEAR_S = 31536000;

  const setCookie = (name, value) => {
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `${name}=${value}; Path=/; Max-Age=${YEAR_S}; SameSite=Lax${secure}`;
  };
  const isDark = () => root.dataset.theme === "dark" || (!root.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  const showTheme = () => {
    document.querySelectorAll("[data-theme-toggle]").forEach((button) => {
      button.setAttribute("aria-pressed", String(isDark()));
    });
  };

  const copy = async (button) => {
    const text = document.getElementById(button.dataset.copy).textContent;
    const label = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      const range = document.createRange();
      range.selectNodeContents(document.getElementById(button.dataset.copy));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      button.textContent = "Press Ctrl+C";
    }
    setTimeout(() => { button.textContent = label; }, 1600);
  };

  document.addEventListener("click", (event) => {
    const toggle = event.target.closest("[data-theme-toggle]");
    if (toggle) {
      root.dataset.theme = isDark() ? "light" : "dark";
      setCookie("theme", root.dataset.theme);
      showTheme();
      if (window.costappCharts) window.costappCharts.drawAll();
    }
    const copier = event.target.closest("[data-copy]");
    if (copier) copy(copier);
    const menu = event.target.closest("[data-menu]");
    if (menu) {
      const open = document.querySelector(".sidebar").classList.toggle("open");
      menu.setAttribute("aria-expanded", String(open));
    }
    document.querySelectorAll("details.pop[open], details.tip[open]").forEach((details) => {
      if (!details.contains(event.target)) details.open = false;
    });
  });

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    document.querySelectorAll("details.pop[open], details.tip[open]").forEach((details) => {
      details.open = false;
      details.querySelector("summary").focus();
    });
  });

  document.addEventListener("DOMContentLoaded", showTheme);
})();
