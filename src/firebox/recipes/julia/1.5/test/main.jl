using LinearAlgebra
using Statistics
println(det([2 0; 0 2]) == 4 && mean([1, 3]) == 2 ? "OK" : "wrong")
