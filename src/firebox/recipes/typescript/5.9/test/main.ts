const letters: Map<number, string> = new Map([[1, "O"], [2, "K"]]);
console.log([...letters.values()].join(""));
