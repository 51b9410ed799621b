// What the pages that compute share: a generator with a seed and percentile intervals.
"use strict";
(function () {
  const Statistics = (window.Statistics = { REPLICATES: 500 });

  // A generator with a seed (mulberry32): the same view gives the same intervals.
  Statistics.random = (seed) => {
    return () => {
      seed = (seed + 0x6d2b79f5) | 0;
      let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  };

  // The 95 % percentile interval of replicates.
  Statistics.interval = (replicates) => {
    const sorted = [...replicates].sort((a, b) => a - b);
    const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
    return [at(0.025), at(0.975)];
  };

  // Mean of paired values with its interval, from a bootstrap over groups; one group has none.
  Statistics.mean = (values, groups) => {
    const place = new Map();
    for (const group of groups) if (!place.has(group)) place.set(group, place.size);
    const sums = new Float64Array(place.size);
    const sizes = new Float64Array(place.size);
    values.forEach((x, k) => { sums[place.get(groups[k])] += x; sizes[place.get(groups[k])] += 1; });
    const point = values.length ? values.reduce((a, b) => a + b, 0) / values.length : null;
    if (place.size < 2) return { point, low: null, high: null, n: values.length };
    const next = Statistics.random(1);
    const replicates = [];
    for (let b = 0; b < Statistics.REPLICATES; b++) {
      let top = 0, size = 0;
      for (let draw = 0; draw < place.size; draw++) {
        const g = Math.floor(next() * place.size);
        top += sums[g];
        size += sizes[g];
      }
      replicates.push(top / size);
    }
    const [low, high] = Statistics.interval(replicates);
    return { point, low, high, n: values.length };
  };
})();
