-- wrk -s bench/http.lua: posts the lines of bodies.txt, each the JSON of a search, one after the other.
local f = io.open("bodies.txt"); local bodies = {}
for l in f:lines() do bodies[#bodies+1] = l end
local i = 0
request = function() i = i % #bodies + 1; return wrk.format("POST", "/collections/s/points/search", {["Content-Type"]="application/json"}, bodies[i]) end
