/// The style sheet of the HTML report.
enum ReportStyle {
    static let css = """
        :root { color-scheme: light dark; --bg: #fbfbfa; --card: #ffffff; --ink: #1b1f24; --faint: #5d6673; --rule: #e3e5e8;
          --a0: #1f5fd0; --a1: #c2570c; --a2: #0d7d64; --good: #13713a; --bad: #b3261e; --goodbg: #e3f4e8; --badbg: #fce8e6;
          --nonebg: #eef0f2; --floor: #d9dde2; }
        @media (prefers-color-scheme: dark) { :root { --bg: #14171b; --card: #1b1f25; --ink: #e6e9ed; --faint: #9aa5b3;
          --rule: #2e353e; --a0: #76a9ff; --a1: #ff9d57; --a2: #4fd1b0; --good: #6ddc93; --bad: #ff8f85; --goodbg: #16331f;
          --badbg: #3d1d1b; --nonebg: #272d35; --floor: #3a424d; } }
        * { box-sizing: border-box; }
        body { margin: 0; background: var(--bg); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto,
          "DejaVu Sans", sans-serif; }
        main { max-width: 1200px; margin: 0 auto; padding: 28px 24px 60px; }
        h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; overflow-wrap: anywhere; }
        h2 { font-size: 1.15rem; margin: 2.4rem 0 .8rem; }
        p { margin: .3rem 0; }
        .sub, figcaption, caption, .foot { color: var(--faint); }
        .facts { display: flex; flex-wrap: wrap; gap: .3rem 1.6rem; margin: .9rem 0 0; padding: 0; list-style: none;
          font-size: .9rem; color: var(--faint); }
        .facts b { color: var(--ink); font-weight: 600; }
        .banner { border-left: 4px solid var(--bad); background: var(--badbg); padding: .7rem 1rem; border-radius: 6px;
          margin: 1.1rem 0 0; }
        .banner.ok { border-color: var(--good); background: var(--goodbg); }
        .cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(205px, 1fr)); gap: 14px; margin: 1.4rem 0 0; }
        .place { margin: 1.4rem 0 -.9rem; }
        .card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: .85rem 1rem; }
        .card .name { color: var(--faint); font-size: .85rem; }
        .card .big { font-size: 1.6rem; font-weight: 650; letter-spacing: -.02em; font-variant-numeric: tabular-nums;
          line-height: 1.35; }
        .card .detail { font-size: .84rem; color: var(--faint); font-variant-numeric: tabular-nums; margin-bottom: .45rem; }
        .badge { display: inline-block; padding: .05rem .55rem; border-radius: 99px; font-size: .82rem; white-space: nowrap;
          background: var(--nonebg); color: var(--ink); }
        .badge.good { background: var(--goodbg); color: var(--good); }
        .badge.bad { background: var(--badbg); color: var(--bad); }
        .scroll { overflow-x: auto; }
        table { border-collapse: collapse; width: 100%; font-size: .9rem; }
        caption { text-align: left; font-size: .85rem; padding: .2rem 0 .4rem; }
        th, td { text-align: left; padding: .34rem .7rem; border-bottom: 1px solid var(--rule); vertical-align: baseline; }
        .sample { overflow-wrap: anywhere; }
        th { font-weight: 500; } thead th { color: var(--faint); font-size: .83rem; }
        .n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
        .unit { color: var(--faint); font-size: .85em; }
        .panelbox { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: .4rem .6rem; }
        .figures { margin-top: 18px; display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 18px; }
        figure { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 14px 14px 10px;
          min-width: 0; }
        figure[id^=heat], figure[id^=differences] { grid-column: 1 / -1; }
        figure svg { display: block; width: 100%; height: auto; }
        figcaption { font-size: .87rem; margin-top: .5rem; } figcaption b { color: var(--ink); font-weight: 600; }
        details { font-size: .87rem; margin-top: .4rem; } summary { cursor: pointer; color: var(--faint); }
        @media (max-width: 860px) { .figures { grid-template-columns: minmax(0, 1fr); } main { padding: 18px 14px 40px; } }
        svg text { fill: var(--faint); font-size: 12px; } svg .label { font-size: 12.5px; }
        svg .legend { fill: var(--ink); font-size: 13px; } svg .legend.good { fill: var(--good); }
        svg .legend.bad { fill: var(--bad); } svg .legend.none { fill: var(--faint); }
        .grid { stroke: var(--rule); stroke-width: 1; } .axis { stroke: var(--faint); stroke-width: 1; }
        .zero { stroke: var(--faint); stroke-width: 1; stroke-dasharray: 3 3; }
        .a0 { --c: var(--a0); } .a1 { --c: var(--a1); } .a2 { --c: var(--a2); }
        .k0 { fill: var(--a0) !important; } .k1 { fill: var(--a1) !important; } .k2 { fill: var(--a2) !important; }
        .line { fill: none; stroke: var(--c); stroke-width: 2.2; stroke-linejoin: round; }
        .line.a1 { stroke-dasharray: 8 3; } .line.a2 { stroke-dasharray: 2.5 3; }
        .mark { fill: var(--c); stroke: var(--card); stroke-width: 1.2; } .band { fill: var(--c); opacity: .18; }
        .bar { fill: var(--c); } .bar.a1 { opacity: .85; }
        .whisker { stroke: var(--c); stroke-width: 1.4; } .knee { stroke: var(--c); stroke-width: 1.6; stroke-dasharray: 2 4; }
        .dot { fill: var(--a0); opacity: .55; stroke: none; }
        .beyond { fill: none; stroke: var(--a0); stroke-width: 1.2; opacity: 1; }
        .interval { stroke: var(--ink); stroke-width: 2.4; stroke-linecap: round; } .estimate { fill: var(--ink); }
        .floor { fill: var(--floor); opacity: .6; } .panel { fill: none; stroke: var(--rule); }
        .heat { fill: var(--c); } .h0 { opacity: .14; } .h1 { opacity: .26; } .h2 { opacity: .4; } .h3 { opacity: .54; }
        .h4 { opacity: .7; } .h5 { opacity: .85; }
        .foot { font-size: .85rem; margin-top: 2.4rem; } .foot code { overflow-wrap: anywhere; }
        @media print { :root { color-scheme: light; --bg: #fff; --card: #fff; --ink: #000; --faint: #444; --rule: #ccc;
          --a0: #1f5fd0; --a1: #c2570c; --a2: #0d7d64; --good: #0b5a2b; --bad: #9c1c15; --goodbg: #fff; --badbg: #fff;
          --nonebg: #fff; --floor: #ddd; }
          body { font-size: 10pt; } main { max-width: none; padding: 0; } @page { margin: 14mm; }
          figure, .card, tr { break-inside: avoid; } h2 { break-after: avoid; } .badge { border: 1px solid currentColor; }
          .cards { grid-template-columns: repeat(4, 1fr); gap: 8px; } details { display: none; }
          .card { padding: .4rem .6rem; } th, td { padding: .16rem .5rem; } table { font-size: 8.5pt; }
          .figures { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 10px; } figure { padding: 8px; }
          figcaption { font-size: 8pt; } svg text, svg .label, svg .legend { font-size: 14px; }
          .badge { font-size: 7.5pt; padding: 0 .4rem; }
          * { print-color-adjust: exact; } }
        """
}
