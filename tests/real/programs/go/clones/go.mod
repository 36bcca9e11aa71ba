module example.org/clones

go 1.22

require spore v0.0.0

replace spore => ./spore
